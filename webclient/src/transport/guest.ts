import { Strophe } from "strophe.js";

// A guest is who has a secret: the gateway makes the name of it (XEP-0175, with the secret as trace information of RFC
// 4505). Without one it would be somebody else after each reconnection.
export const secretPrefix = "holdfast:";

export function anonymous(secret: string): new () => InstanceType<typeof Strophe.SASLMechanism> {
  return class extends Strophe.SASLMechanism {
    constructor() {
      super("ANONYMOUS", true, 20);
    }
    override test(): boolean {
      return true;
    }
    override clientChallenge(): string {
      return secretPrefix + secret;
    }
  };
}
