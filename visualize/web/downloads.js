// Files of the motions shown: a row of links per variation; videos show their progress.
"use strict";

const POLL_MILLISECONDS = 700;

class DownloadRows {
  /**
   * @param root  Element that receives the rows.
   * @param data  Data of the page: kinds of files and the start of addresses.
   * @param app   Has keep(number), called by the button of a variation, and say(text), which tells of failures.
   */
  constructor(root, data, app) {
    Object.assign(this, { root, app, kinds: data.kinds, api: data.api });
    this.films = new Set(); // of the videos in the making: what cancels them
  }

  /** Show rows for motions, or none. */
  show(shown) {
    for (const film of this.films) film.abort();
    this.root.replaceChildren(...(shown?.names ?? []).map((name, number) => this.#row(shown, name, number)));
  }

  #row(shown, name, number) {
    const several = shown.names.length > 1;
    const address = `${this.api}/motion/${shown.token}/${name}`;
    const links = this.kinds.flatMap((kind) => [kind === "mp4" ? this.#filmLink(address) : linkTo(address, kind), " "]);
    const keep = element("button", { type: "button", textContent: "Keep", ariaLabel: `Keep variation ${number + 1}` });
    keep.addEventListener("click", () => this.app.keep(number));
    if (!several) return element("p", {}, "Download: ", ...links);
    const label = element("b", { textContent: number + 1, title: `Variation ${number + 1}` });
    return element("p", {}, label, ...links, keep);
  }

  #filmLink(address) {
    const link = linkTo(address, "mp4");
    link.addEventListener("click", (event) => {
      event.preventDefault();
      this.#film(link, address);
    });
    return link;
  }

  /** Fetch a video, which the server draws meanwhile. */
  async #film(link, address) {
    const abort = new AbortController();
    const share = element("span", { textContent: "mp4 …" });
    const cancel = element("button", { type: "button", textContent: "✕", title: "Cancel", ariaLabel: "Cancel the video" });
    const box = element("span", { className: "film", role: "group", ariaLabel: "video" }, share, " ", cancel);
    cancel.addEventListener("click", () => abort.abort());
    this.films.add(abort);
    link.replaceWith(box);
    this.#showProgress(`${address}/video`, share, abort.signal);
    try {
      const content = await (await answerOf(link.href, { signal: abort.signal })).blob();
      save(content, address.split("/").at(-1) + ".mp4");
    } catch (error) {
      if (!abort.signal.aborted) this.app.say(error.message, error instanceof Lost ? () => link.click() : null);
    }
    abort.abort();
    this.films.delete(abort);
    box.replaceWith(link);
    if (document.activeElement === document.body && link.isConnected) link.focus();
  }

  /** Show the share of a video that is drawn, until it is finished or cancelled; without an answer, nothing changes. */
  async #showProgress(address, share, signal) {
    for (;;) {
      await new Promise((go) => setTimeout(go, POLL_MILLISECONDS));
      const response = signal.aborted ? null : await fetch(address, { signal }).catch(() => null);
      if (!response?.ok) return;
      const { ahead, percent } = await response.json();
      share.textContent = ahead ? `mp4: ${ahead} before it` : `mp4 ${percent} %`;
    }
  }
}

function linkTo(address, kind) {
  return element("a", { href: `${address}.${kind}`, download: "", textContent: kind });
}

/** Save content under a name, as a link with the attribute download does. */
function save(content, download) {
  const href = URL.createObjectURL(content);
  element("a", { href, download }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
