// Node 18 has no global Web Crypto.
import { webcrypto } from "node:crypto";

if (typeof globalThis.crypto === "undefined") Object.defineProperty(globalThis, "crypto", { value: webcrypto });
