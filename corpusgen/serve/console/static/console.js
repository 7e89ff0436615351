// What the pages do by themselves: parts that draw themselves anew, the theme, the menu. Everything works without it.
"use strict";

const watched = [...document.querySelectorAll("[data-live]")];
let paused = false;

// A part of a page, read from our own server. It is parsed as a document that runs nothing.
async function fetched(address) {
  const answer = await fetch(address, { credentials: "same-origin", redirect: "error", cache: "no-store" });
  if (!answer.ok) {
    await answer.body?.cancel(); // or the connection waits for somebody to read it
    throw new Error(String(answer.status));
  }
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function put(place, parsed, pick) {
  const found = pick ? parsed.querySelector(pick) : parsed.body;
  if (!found) return false;
  const held = document.activeElement && place.contains(document.activeElement);
  if (held || (window.getSelection() && !window.getSelection().isCollapsed)) return false; // nobody's place is lost
  place.replaceChildren(...[...found.childNodes].map((node) => document.importNode(node, true)));
  return true;
}

async function once(place) {
  try {
    put(place, await fetched(place.dataset.live), place.dataset.pick);
  } catch { /* the link that is there leads to the same */ }
}

async function again(place) {
  const every = Number(place.dataset.every) || 2000;
  let wait = every;
  while (place.isConnected) {
    await new Promise((done) => setTimeout(done, wait));
    if (paused || document.hidden) continue;
    try {
      const parsed = await fetched(place.dataset.live);
      const over = parsed.querySelector("[data-done]");
      if (put(place, parsed, "") && over) {
        location.reload(); // what is shown once a run has ended is more than this part
        return;
      }
      wait = every;
    } catch {
      wait = Math.min(wait * 2, 30000);
    }
  }
}

for (const place of watched) {
  if ("over" in place.dataset) continue;
  if ("once" in place.dataset) once(place);
  else again(place);
}

for (const button of document.querySelectorAll("[data-pause]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Go on" : "Pause";
    button.setAttribute("aria-pressed", String(paused));
  });
}

for (const form of document.querySelectorAll("[data-theme-form]")) {
  form.addEventListener("submit", (event) => {
    const wanted = event.submitter && event.submitter.value;
    if (!wanted) return;
    event.preventDefault();
    const root = document.documentElement;
    const secure = location.protocol === "https:" ? "; Secure" : "";
    if (wanted === "auto") {
      delete root.dataset.theme;
      document.cookie = "corpusgen_theme=; Max-Age=0; SameSite=Strict; Path=/console" + secure;
    } else {
      root.dataset.theme = wanted;
      document.cookie = "corpusgen_theme=" + wanted + "; Max-Age=31536000; SameSite=Strict; Path=/console" + secure;
    }
    for (const one of form.querySelectorAll("button")) {
      one.setAttribute("aria-pressed", String(one.value === wanted));
    }
  });
}

const secret = document.getElementById("secret");
if (secret) secret.addEventListener("focus", () => secret.select());

const menu = document.querySelector("details.menu");
if (menu && matchMedia("(max-width:639px)").matches) menu.open = false;
