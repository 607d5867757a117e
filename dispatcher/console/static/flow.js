// The wallet-flow log: totals that add themselves up, step by step, and the reader's own zone in the filter.
"use strict";
(() => {
  const zone = document.querySelector("[data-own-zone='yes']");
  if (zone !== null) {
    const ahead = -new Date().getTimezoneOffset();
    const two = (number) => String(number).padStart(2, "0");
    const own = `${ahead < 0 ? "-" : "+"}${two(Math.floor(Math.abs(ahead) / 60))}:${two(Math.abs(ahead) % 60)}`;
    if ([...zone.options].some((option) => option.value === own)) zone.value = own;
  }

  // As console.js does with the times that a page comes with.
  function localise(root) {
    const two = (number) => String(number).padStart(2, "0");
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
      time.title = time.textContent;
      time.textContent = `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
    }
  }

  const box = document.getElementById("totals");
  const said = document.getElementById("totals-said");
  if (box === null || said === null) return;
  const leaving = new AbortController();
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const visible = () =>
    document.hidden ? new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true })) : null;
  let stopped = false;

  const stop = document.createElement("button");
  stop.type = "button";
  stop.className = "quiet";
  stop.textContent = box.dataset.stop;
  stop.addEventListener("click", () => {
    stopped = true;
    stop.remove();
    const told = box.querySelector("[data-told]");
    if (told !== null) said.textContent = told.textContent;
    const link = box.querySelector("a[data-on]");
    if (link !== null) link.focus();
  });

  async function addUp() {
    stopped = false;
    let link = box.querySelector("a[data-on]");
    while (link !== null && !stopped) {
      const began = performance.now();
      const answer = await fetch(link.href, { headers: { "X-Live": "1" }, signal: leaving.signal, cache: "no-store" });
      if (answer.status === 401) return location.reload();
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("totals");
      if (!answer.ok || fresh === null) return stop.remove();
      const focused = box.contains(document.activeElement) && document.activeElement !== stop;
      box.replaceChildren(...fresh.childNodes);
      link = box.querySelector("a[data-on]");
      localise(box);
      if (link === null || stopped) break;
      link.hidden = true;
      if (!stop.isConnected) box.after(stop);
      if (focused) stop.focus();
      // Two thirds of the time are the deliveries'.
      await wait(2 * (performance.now() - began));
      await visible();
    }
    if (link !== null) link.hidden = false;
    else stop.remove();
    const told = box.querySelector("[data-told]");
    if (told !== null) said.textContent = told.textContent;
  }

  const go = () => addUp().catch(() => stop.remove());
  box.addEventListener("click", (event) => {
    if (event.target.closest("a[data-on]") === null || event.ctrlKey || event.metaKey || event.button !== 0) return;
    event.preventDefault();
    go();
  });
  window.addEventListener("pagehide", () => leaving.abort());
  go();
})();
