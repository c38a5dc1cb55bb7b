// What Node lacks of a browser for strophe.js over BOSH: XMLHttpRequest, as far as the library uses it
// (src/request.ts, src/transports/bosh.ts), on top of fetch. responseXML needs a DOMParser, which strophe.js brings.

class XMLHttpRequest {
  readyState = 0;
  status = 0;
  responseText = "";
  responseXML = null;
  onreadystatechange = () => {};
  #method;
  #url;
  #headers = {};
  #answered = null;
  #abort = new AbortController();

  open(method, url) {
    this.#method = method;
    this.#url = url;
    this.#state(1);
  }

  setRequestHeader(name, value) {
    this.#headers[name] = value;
  }

  overrideMimeType() {}

  getAllResponseHeaders() {
    return [...(this.#answered?.headers ?? [])].map(([name, value]) => `${name}: ${value}\r\n`).join("");
  }

  async send(body) {
    try {
      this.#answered = await fetch(this.#url, { method: this.#method, headers: this.#headers, body, signal: this.#abort.signal });
      const text = await this.#answered.text();
      this.status = this.#answered.status;
      this.responseText = text;
      this.responseXML = text ? new DOMParser().parseFromString(text, "text/xml") : null;
    } catch {
      this.status = 0; // a network error, as in a browser
    }
    if (!this.#abort.signal.aborted) this.#state(4);
  }

  abort() {
    this.#abort.abort();
  }

  #state(n) {
    this.readyState = n;
    this.onreadystatechange();
  }
}

globalThis.XMLHttpRequest ??= XMLHttpRequest;
