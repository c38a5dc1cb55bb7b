// The module of the widget: it defines <holdfast-chat>, and exports what a page may want besides.

import { HoldfastChat } from "./ui/element.js";

if (!customElements.get("holdfast-chat")) customElements.define("holdfast-chat", HoldfastChat);

export { HoldfastChat };
export { known as stringKeys } from "./i18n/strings.js";
export { guestAddress } from "./guest-address.js";
