/* Browsers refuse workers to pages that are opened from a disk: there the search runs in a frame. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      const answer = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      frame.hidden = true;
      frame.srcdoc = `<script src="${url}"></script>`;
      this.ready = new Promise((resolve) => (frame.onload = () => resolve(frame.contentWindow)));
      this.ready.then((inside) => (inside.postMessage = answer));
      document.body.append(frame);
    }

    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
