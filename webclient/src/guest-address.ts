// The address that a guest will have, before anything is connected: the gateway makes the name of the secret in the same
// way (package auth, GuestName).

import { Store } from "./store/store.js";
import { newSecret } from "./core/secret.js";

const digits = "abcdefghijklmnopqrstuvwxyz234567";

export function storeName(profile: string, domain: string): string {
  return `holdfast guest ${profile}@${domain}`;
}

export async function guestName(secret: string): Promise<string> {
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`holdfast guest\0${secret}`)));
  let name = "guest-";
  for (let bit = 0; bit < 160; bit += 5) {
    const pair = ((sum[bit >> 3] ?? 0) << 8) | (sum[(bit >> 3) + 1] ?? 0);
    name += digits[(pair >> (11 - (bit & 7))) & 31] ?? "";
  }
  return name;
}

// guestAddress is the bare address of this device's guest of a profile.
export async function guestAddress(profile: string, domain: string): Promise<string> {
  const store = await Store.open(storeName(profile, domain), () => undefined);
  try {
    return `${await guestName(await store.meta("secret", newSecret))}@${domain}`;
  } finally {
    store.close();
  }
}
