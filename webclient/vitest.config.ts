import { defineConfig } from "vitest/config";

// On a busy machine everything takes longer. Only what fails waits for these.
const bounds = { testTimeout: 30_000, expect: { poll: { timeout: 10_000 } } };

export default defineConfig({ test: { include: ["test/**/*.test.ts"], environment: "node", setupFiles: ["test/setup.ts"], ...bounds } });
