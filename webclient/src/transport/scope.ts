// What strophe.js takes for the global scope when it leaves its names there.
export const stropheScope: Record<string, unknown> = {};
