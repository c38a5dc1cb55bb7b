// IndexedDB with promises, as much of it as the store needs.

export function request<T>(r: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    r.onsuccess = () => resolve(r.result);
    r.onerror = () => reject(r.error ?? new Error("IndexedDB request failed"));
  });
}

function committed(tx: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    tx.oncomplete = () => resolve();
    tx.onabort = tx.onerror = () => reject(tx.error ?? new Error("IndexedDB transaction failed"));
  });
}

// Names of the object stores.
export type Name = "messages" | "queue" | "meta";
const names: Name[] = ["messages", "queue", "meta"];

export function open(name: string, onLost: () => void): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const r = indexedDB.open(name, 1);
    r.onupgradeneeded = () => {
      const messages = r.result.createObjectStore("messages", { keyPath: "key", autoIncrement: true });
      messages.createIndex("conversation", ["with", "key"]);
      messages.createIndex("identity", ["with", "dir", "id"], { unique: true });
      r.result.createObjectStore("queue", { keyPath: "seq", autoIncrement: true });
      r.result.createObjectStore("meta");
    };
    r.onsuccess = () => {
      // Another page with a newer version of this, or somebody who clears the site's data.
      r.result.onversionchange = () => {
        r.result.close();
        onLost();
      };
      r.result.onclose = onLost;
      resolve(r.result);
    };
    r.onerror = () => reject(r.error ?? new Error("IndexedDB cannot be opened"));
    r.onblocked = () => reject(new Error("IndexedDB is blocked by another page"));
  });
}

// transact runs f in one transaction over everything and returns what f did when it is committed. All tabs' transactions
// come one after the other.
export async function transact<T>(db: IDBDatabase, mode: "readonly" | "readwrite", f: (tx: IDBTransaction) => Promise<T>): Promise<T> {
  const tx = db.transaction(names, mode);
  const done = committed(tx);
  done.catch(() => undefined); // said below, or by f
  let result: T;
  try {
    result = await f(tx);
  } catch (err) {
    try {
      tx.abort();
    } catch {
      // It is over already, which is what f failed of.
    }
    throw err;
  }
  await done;
  return result;
}
