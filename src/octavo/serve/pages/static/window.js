// Keeps the window on training fresh: asks for the same page again and replaces the sections that have changed.
"use strict";

const EVERY_MILLISECONDS = 2000;
const shown = new Map(); // id of a section -> its HTML as the server wrote it last

function remember(page) {
  for (const section of page.querySelectorAll("[data-live]")) shown.set(section.id, section.outerHTML);
}

// "2 minutes ago", in the language of the page; the exact time is the title.
function tellTimes() {
  const words = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });
  for (const time of document.querySelectorAll("time[data-at]")) {
    const seconds = Number(time.dataset.at) - Date.now() / 1000;
    const [size, unit] = [[86400, "day"], [3600, "hour"], [60, "minute"]].find(([size]) => -seconds >= size) || [1, "second"];
    time.title ||= time.textContent;
    time.textContent = words.format(Math.min(0, Math.round(seconds / size)), unit);
  }
}

const SCROLL = ".wide, ol, pre";
const FOCUS = "a, button, summary, [tabindex]";

// Puts the new section in the place of the old one; what was open, focused or scrolled stays so.
function replace(section, html) {
  const old = document.getElementById(section.id);
  if (!old) return;
  const scrolled = [...old.querySelectorAll(SCROLL)].map((box) => [box.scrollLeft, box.scrollTop]);
  const open = [...old.querySelectorAll("details[open][id]")].map((details) => details.id);
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const place = focused && [...old.querySelectorAll(FOCUS)].indexOf(focused);
  old.replaceWith(section);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) section.querySelectorAll(FOCUS)[place]?.focus({ preventScroll: true });
  section.querySelectorAll(SCROLL).forEach((box, number) => {
    [box.scrollLeft, box.scrollTop] = scrolled[number] || [0, 0];
  });
  shown.set(section.id, html);
}

async function refresh() {
  const lost = document.getElementById("connection");
  try {
    const answer = await fetch(location.pathname + location.search, { cache: "no-cache", redirect: "error" });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const section of page.querySelectorAll("[data-live]")) {
      const html = section.outerHTML;
      if (shown.get(section.id) !== html && !reading(section.id)) replace(section, html);
    }
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  }
  tellTimes();
}

// A section in which text is being selected, or a chart is being read, is left alone.
function reading(id) {
  const old = document.getElementById(id);
  const selection = getSelection();
  const selected = selection && !selection.isCollapsed && old?.contains(selection.anchorNode);
  return selected || Boolean(old?.querySelector("svg:hover, svg:focus"));
}

function keepFresh() {
  setTimeout(async () => {
    if (!document.hidden) await refresh();
    keepFresh();
  }, EVERY_MILLISECONDS);
}

// Charts: the pointer, or the arrow keys, tell the numbers at a step.
function pointsOf(line) {
  return line.getAttribute("points").split(" ").map((pair) => pair.split(",").map(Number));
}

function short(value, isShare) {
  if (isShare) return `${Number((100 * value).toPrecision(3))}%`;
  return String(Number(value.toPrecision(3)));
}

function tell(svg, x) {
  const [x0, x1, y0, y1] = svg.dataset.range.split(" ").map(Number);
  const [left, right, top, bottom] = svg.dataset.box.split(" ").map(Number);
  const lines = [...svg.querySelectorAll("polyline")];
  let at = null;
  const values = lines.map((line) => {
    const nearest = pointsOf(line).reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
    if (at === null || Math.abs(nearest[0] - x) < Math.abs(at - x)) at = nearest[0];
    const value = y0 + ((bottom - nearest[1]) / (bottom - top)) * (y1 - y0);
    const name = lines.length > 1 ? `${line.dataset.name} ` : "";
    return name + short(value, svg.dataset.share === "yes");
  });
  const step = Math.round(x0 + ((at - left) / (right - left)) * (x1 - x0));
  const cursor = svg.querySelector(".cursor");
  cursor.removeAttribute("hidden");
  cursor.setAttribute("x1", at);
  cursor.setAttribute("x2", at);
  svg.closest("figure").querySelector("output").textContent = `${svg.dataset.step} ${step}: ${values.join(", ")}`;
  svg.dataset.at = at;
}

function quiet(svg) {
  svg.querySelector(".cursor").setAttribute("hidden", "");
  svg.closest("figure").querySelector("output").textContent = "";
}

function chartOf(event) {
  return event.target instanceof Element ? event.target.closest("figure.chart svg") : null;
}

document.addEventListener("pointermove", (event) => {
  const svg = chartOf(event);
  if (!svg) return;
  const frame = svg.getBoundingClientRect();
  tell(svg, ((event.clientX - frame.left) / frame.width) * svg.viewBox.baseVal.width);
});
document.addEventListener("pointerout", (event) => {
  const svg = chartOf(event);
  if (svg && !svg.contains(event.relatedTarget)) quiet(svg);
});
document.addEventListener("focusout", (event) => chartOf(event) && quiet(chartOf(event)));
document.addEventListener("keydown", (event) => {
  const svg = chartOf(event);
  const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!svg || !way) return;
  event.preventDefault();
  const places = pointsOf(svg.querySelector("polyline")).map((point) => point[0]);
  const now = svg.dataset.at === undefined ? places.length : places.findIndex((place) => place >= Number(svg.dataset.at));
  const next = places[Math.max(0, Math.min(places.length - 1, now + way))];
  tell(svg, next);
});

// On a narrow screen the stages stand in a row: the one that is shown should be in sight.
function showCurrentStage() {
  const current = document.querySelector(".stages [aria-current]");
  const row = current?.closest("ol");
  if (row) row.scrollLeft = current.offsetLeft - (row.clientWidth - current.offsetWidth) / 2;
}

remember(document);
showCurrentStage();
tellTimes();
keepFresh();
