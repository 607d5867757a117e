// What pages do beyond being shown: times in the reader's zone, regions that stay fresh, ticks. Without it all pages work.
"use strict";
(() => {
  const EVERY = 3_000;
  const AT_MOST = 60_000;
  const PATIENCE = 15_000;
  const two = (number) => String(number).padStart(2, "0");

  // Times: by the reader's clock, with the one of before in the title.
  function localise(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const hour = `${two(at.getHours())}:${two(at.getMinutes())}`;
      const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
      time.title = time.dataset.title ?? time.textContent;
      time.textContent = time.dataset.short === undefined ? `${day} ${hour}:${two(at.getSeconds())}` : hour;
    }
    for (const zone of root.querySelectorAll("[data-zone]")) {
      const ahead = -new Date().getTimezoneOffset();
      const name = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
      const from = `UTC${ahead < 0 ? "−" : "+"}${two(Math.floor(Math.abs(ahead) / 60))}:${two(Math.abs(ahead) % 60)}`;
      zone.textContent = name === "UTC" ? "UTC" : `${name} (${from})`;
    }
  }

  // The tree that stands becomes the one that came, node by node: what is the same is not touched, so focus, selection,
  // scroll, ticks, what somebody has written and what is folded open stay as they are.
  const keyOf = (node) =>
    node.nodeType !== Node.ELEMENT_NODE ? "" : node.id || node.dataset.key || node.querySelector(":scope > .tick > input")?.value || "";

  function alike(old, fresh) {
    return old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && keyOf(old) === keyOf(fresh);
  }

  function become(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    const open = old.nodeName === "DETAILS" || old.nodeName === "DIALOG" ? "open" : "";
    for (const { name } of [...old.attributes]) {
      if (name !== open && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (name !== open && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    if (old.nodeName !== "TEXTAREA") becomeWithin(old, fresh);
  }

  function becomeWithin(old, fresh) {
    const wanted = new Set([...fresh.childNodes].map(keyOf).filter(Boolean));
    const known = new Map();
    for (const child of [...old.childNodes]) {
      const key = keyOf(child);
      if (key && !wanted.has(key)) child.remove();
      else if (key) known.set(key, child);
    }
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const key = keyOf(child);
      let match = key ? known.get(key) : place;
      if (!match || !alike(match, child)) match = null;
      if (match === null) {
        old.insertBefore(document.importNode(child, true), place);
        continue;
      }
      if (match === place) place = place.nextSibling;
      else old.insertBefore(match, place);
      become(match, child);
    }
    while (place !== null) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  function exchange(regions, fresh) {
    const focused = document.activeElement;
    for (const region of regions) {
      const its = fresh.getElementById(region.id);
      if (its !== null) become(region, its);
    }
    if (focused !== document.activeElement) {
      const stays = focused?.isConnected ? focused : document.getElementById("main");
      stays?.focus({ preventScroll: true });
    }
    countTicks();
  }

  // Live regions.
  const toggle = document.getElementById("live");
  const status = document.getElementById("live-status");
  const regions = [...document.querySelectorAll("[data-live][id]")];
  let timer = 0;
  let pause = EVERY;
  let tag = null;
  let asking = false;

  const wanted = () => toggle !== null && toggle.getAttribute("aria-pressed") === "true";

  function say(word) {
    toggle.classList.toggle("away", word !== "");
    if (status.textContent !== word) status.textContent = word;
  }

  function later() {
    clearTimeout(timer);
    if (wanted() && !document.hidden) timer = setTimeout(ask, pause);
  }

  async function ask() {
    if (asking) return;
    asking = true;
    try {
      const headers = { "X-Live": "1", ...(tag === null ? {} : { "If-None-Match": tag }) };
      const signal = AbortSignal.timeout(PATIENCE);
      const answer = await fetch(location.pathname + location.search, { headers, signal, cache: "no-store" });
      if (answer.status === 401) {
        // Nobody is logged in any more: the page as a whole leads to the door, and from there back.
        location.reload();
        return;
      }
      if (answer.status !== 304) {
        if (!answer.ok) throw new Error(String(answer.status));
        const text = await answer.text();
        if (!wanted()) return;
        const fresh = new DOMParser().parseFromString(text, "text/html");
        localise(fresh);
        exchange(regions, fresh);
        tag = answer.headers.get("etag");
      }
      pause = EVERY;
      say("");
    } catch {
      pause = Math.min(pause * 2, AT_MOST);
      say(toggle.dataset.away.replace("{}", String(Math.round(pause / 1_000))));
    } finally {
      asking = false;
      later();
    }
  }

  function label() {
    toggle.textContent = wanted() ? toggle.dataset.on : toggle.dataset.off;
  }

  if (toggle !== null && regions.length > 0) {
    toggle.hidden = false;
    toggle.setAttribute("aria-pressed", String(sessionStorage.getItem("live") !== "off"));
    label();
    toggle.addEventListener("click", () => {
      toggle.setAttribute("aria-pressed", String(!wanted()));
      sessionStorage.setItem("live", wanted() ? "on" : "off");
      label();
      say("");
      pause = EVERY;
      if (wanted()) ask();
      else clearTimeout(timer);
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) clearTimeout(timer);
      else if (wanted()) ask();
    });
    window.addEventListener("online", () => wanted() && ask());
    later();
  }

  // Ticked rows.
  const boxes = (name) => [...document.querySelectorAll(`input[type="checkbox"][name="${CSS.escape(name)}"]`)];

  function countTicks() {
    for (const shown of document.querySelectorAll("[data-ticked]")) {
      shown.textContent = String(boxes(shown.dataset.ticked).filter((box) => box.checked).length);
    }
    for (const needs of document.querySelectorAll("[data-needs]")) {
      needs.disabled = !boxes(needs.dataset.needs).some((box) => box.checked);
    }
    for (const all of document.querySelectorAll("[data-ticks]")) {
      const some = boxes(all.dataset.ticks);
      const ticked = some.filter((box) => box.checked).length;
      all.checked = some.length > 0 && ticked === some.length;
      all.indeterminate = ticked > 0 && ticked < some.length;
    }
  }

  document.addEventListener("change", (event) => {
    const name = event.target.dataset?.ticks;
    if (name !== undefined) for (const box of boxes(name)) box.checked = event.target.checked;
    if (event.target.type === "checkbox") countTicks();
  });

  // A form is sent once; a menu closes by Escape, and when something else is pressed.
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "1";
  });
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll(".menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  localise(document);
  countTicks();
  // Where the menu is wider than the phone, the page that one is on is in sight.
  document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
})();
