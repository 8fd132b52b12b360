// The live board: listens to GET /events?type=summary, and draws. No other program is needed.
"use strict";
const root = document.body.dataset.root;
const $ = (id) => document.getElementById(id);
const SECONDS = 180; // of the chart
const MAX_CARDS = 60; // more products are a map
const STALE_MS = 3000;
const REASONS = { // problem types of refused orders, in the order of the legend
  "insufficient-stock": "sold out", "customer-limit": "over the limit", "not-on-sale": "not on sale",
  "price-changed": "price changed", "product-not-found": "unknown product",
};
const COLOURS = ["#ff9d3c", "#d8679e", "#a88bff", "#c9a66b", "#ff8a7a", "#8b98a9"];

const products = new Map(); // id -> {id, name, price, stock, held, sold, sales: [[moment, units]]}
let seconds = []; // {at, accepted, refused: {reason: count}}
let holds = { count: 0, next: [] };
let revenueCents = 0, units = 0, refusedTotals = {}, acceptedTotal = 0;
let lastAt = 0, isDirty = true, leftOut = 0;

// An EventSource cannot send an API key, so the stream is read here
// (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
async function connect() {
  const key = sessionStorage.getItem("key");
  let wait = 1000;
  try {
    const response = await fetch(`${root}/events?type=summary`, { headers: key ? { Authorization: `Bearer ${key}` } : {} });
    if (response.status === 401 || response.status === 403) { askForKey((await response.json()).detail); return; }
    if (response.ok) await readMessages(response.body.pipeThrough(new TextDecoderStream()).getReader());
    else wait = 2000;
  } catch { /* the connection is lost: try again */ }
  setTimeout(connect, wait);
}

async function readMessages(reader) {
  let unread = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (unread + value).split("\n\n");
    unread = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 2)]));
      if (fields.event === "products") takeProducts(JSON.parse(fields.data));
      if (fields.event === "summary") takeSummary(JSON.parse(fields.data));
    }
  }
}

// The key stays in this tab, and is gone when it is closed.
function askForKey(reason) {
  $("access").hidden = false;
  text("access-reason", sessionStorage.getItem("key") ? reason : "This service has API keys. A key with the scope ops:read shows the board.");
  $("key").focus();
}

function takeKey(event) {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value.trim());
  $("key").value = "";
  $("access").hidden = true;
  connect();
}

function takeProducts(message) {
  if (message.first) { products.clear(); leftOut = message.left_out; }
  for (const id of message.withdrawn ?? []) products.delete(id);
  const now = Date.now();
  for (const [id, name, price, stock, held, sold] of message.products) {
    const before = products.get(id);
    const sales = before?.sales ?? [];
    if (before && before.stock > stock) sales.push([now, before.stock - stock]);
    products.set(id, { id, name, price, stock, held, sold, sales });
  }
  isDirty = true;
}

function takeSummary(message) {
  lastAt = Date.now();
  const accepted = message.orders.placed + message.orders.pending;
  spread(message.seconds, accepted, message.refused);
  acceptedTotal += accepted;
  for (const [reason, count] of Object.entries(message.refused)) refusedTotals[reason] = (refusedTotals[reason] ?? 0) + count;
  revenueCents += Math.round(message.revenue * 100);
  units += message.units;
  holds = message.holds;
  isDirty = true;
}

// A message is about the last half second or so: each second of the chart gets its share of it.
function spread(duration, accepted, refused) {
  const end = lastAt / 1000, start = end - Math.min(Math.max(duration, 0.001), 60);
  for (let at = Math.floor(start); at < end; at++) {
    const part = (Math.min(end, at + 1) - Math.max(start, at)) / (end - start);
    let second = seconds.find((each) => each.at === at);
    if (!second) { seconds.push(second = { at, accepted: 0, refused: {} }); seconds.sort((a, b) => a.at - b.at); }
    second.accepted += accepted * part;
    for (const [reason, count] of Object.entries(refused)) second.refused[reason] = (second.refused[reason] ?? 0) + count * part;
  }
  seconds = seconds.filter((each) => each.at > end - SECONDS);
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const refusedOf = (second) => sum(Object.values(second.refused));
const whole = new Intl.NumberFormat();
const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const shown = (number) => whole.format(number);

function rate(countOf) { // per second, over the last three whole seconds
  const now = Math.floor(Date.now() / 1000);
  return sum(seconds.filter((each) => each.at < now && each.at >= now - 3).map(countOf)) / 3;
}

function text(id, value) { const element = $(id); if (element.textContent !== value) element.textContent = value; }

function drawState() {
  const age = lastAt ? Date.now() - lastAt : Infinity;
  const isStale = age > STALE_MS;
  document.body.classList.toggle("stale", isStale);
  $("state").className = isStale ? "stale" : "live";
  text("state", !$("access").hidden ? "needs a key" : !isStale ? "live" : lastAt === 0 ? "connecting …" : `no data for ${Math.floor(age / 1000)} s, reconnecting …`);
}

function drawNumbers() {
  const stale = document.body.classList.contains("stale");
  const perSecond = (value) => (stale ? "–" : value < 10 && value > 0 ? value.toFixed(1) : shown(Math.round(value)));
  text("accepted", perSecond(rate((each) => each.accepted)));
  text("accepted-total", `${shown(acceptedTotal)} since this page was opened`);
  text("refused", perSecond(rate(refusedOf)));
  text("refused-total", `${shown(sum(Object.values(refusedTotals)))} since then`);
  text("revenue", money.format(revenueCents / 100));
  text("units", `${shown(units)} units sold since then`);
  let left = 0, all = 0;
  for (const each of products.values()) { left += each.stock; all += each.stock + each.held + each.sold; }
  text("left", all ? `${(100 * left / all).toFixed(left && left < all / 20 ? 1 : 0)} %` : "–");
  text("left-units", `${shown(left)} of ${shown(all)} units`);
}

function canvasOf(id) {
  const canvas = $(id), scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return [context, width, height, scale];
}

function resolved(className) { const probe = $("probe"); probe.className = className; return getComputedStyle(probe).backgroundColor; }

function reasonsNow() {
  const known = Object.keys(REASONS);
  return Object.keys(refusedTotals).sort((a, b) => known.indexOf(a) - known.indexOf(b));
}
const colourOf = (reason) => COLOURS[Math.max(0, Object.keys(REASONS).indexOf(reason)) % COLOURS.length];

function drawChart() {
  const [context, width, height, scale] = canvasOf("chart");
  const now = Math.floor(Date.now() / 1000), reasons = reasonsNow();
  const most = Math.max(5, ...seconds.map((each) => each.accepted + refusedOf(each)));
  const step = width / SECONDS, top = 18 * scale, room = height - top;
  const accepted = resolved("left"), quiet = getComputedStyle($("state")).borderTopColor;
  for (const part of [0.5, 1]) {
    const y = height - room * part;
    context.fillStyle = quiet;
    context.fillRect(0, y, width, 1);
    context.fillStyle = getComputedStyle($("legend")).color;
    context.font = `${12 * scale}px system-ui, sans-serif`;
    context.fillText(`${shown(Math.round(most * part))}/s`, 2 * scale, y - 3 * scale);
  }
  for (const each of seconds) {
    const x = width - (now - each.at) * step;
    let y = height;
    for (const [count, fill] of [[each.accepted, accepted], ...reasons.map((reason) => [each.refused[reason] ?? 0, colourOf(reason)])]) {
      const tall = count / most * room;
      context.fillStyle = fill;
      context.fillRect(x, y - tall, Math.max(1, step - scale), tall);
      y -= tall;
    }
  }
  const rows = [[accepted, "accepted", acceptedTotal], ...reasons.map((reason) => [colourOf(reason), `refused: ${REASONS[reason] ?? reason}`, refusedTotals[reason]])];
  $("legend").replaceChildren(...rows.map(([fill, name, count]) => {
    const item = document.createElement("li"), square = document.createElement("i");
    square.style.background = fill;
    item.append(square, `${name} ${shown(count)}`);
    return item;
  }));
  $("chart").setAttribute("aria-label", `Orders of the last ${SECONDS} seconds: ${rows.map(([, name, count]) => `${name} ${count}`).join(", ")}`);
}

function drawHolds() {
  text("held-count", `${shown(holds.count)} pending orders hold stock`);
  $("next-title").hidden = !holds.next.length;
  $("next").replaceChildren(...holds.next.map(({ order, expires_at }) => {
    const item = document.createElement("li"), rest = Math.max(0, Math.ceil((Date.parse(expires_at) - Date.now()) / 1000));
    item.textContent = `#${order} · ${Math.floor(rest / 60)}:${String(rest % 60).padStart(2, "0")}`;
    item.title = `ends at ${new Date(expires_at).toLocaleTimeString()}`;
    item.classList.toggle("soon", rest <= 30);
    return item;
  }));
}

const received = (each) => each.stock + each.held + each.sold;
const share = (each) => (received(each) ? each.stock / received(each) : 0);

const cards = new WeakMap();
function card(each) { // the elements of a product are made once, and then only changed
  let parts = cards.get($("grid"))?.get(each.id);
  if (!parts) {
    const element = document.createElement("article"), name = document.createElement("b"), bar = document.createElement("div"), line = document.createElement("p"), big = document.createElement("span");
    element.className = "product";
    bar.className = "bar";
    bar.setAttribute("role", "img");
    big.className = "big";
    const spans = ["left", "held", "sold"].map((kind) => { const span = document.createElement("span"); span.className = kind; return span; });
    bar.append(...spans);
    const rest = document.createElement("span");
    line.append(big, rest);
    element.append(name, bar, line);
    parts = { element, name, bar, spans, big, rest };
    if (!cards.has($("grid"))) cards.set($("grid"), new Map());
    cards.get($("grid")).set(each.id, parts);
  }
  parts.name.textContent = each.name;
  parts.name.title = `${each.name} (${each.id})`;
  parts.element.classList.toggle("out", each.stock === 0);
  [each.stock, each.held, each.sold].forEach((count, index) => { parts.spans[index].style.flexGrow = count; });
  parts.bar.setAttribute("aria-label", `${each.stock} left, ${each.held} held, ${each.sold} sold`);
  parts.big.textContent = each.stock ? `${shown(each.stock)} left` : each.held ? "all held" : "sold out";
  parts.rest.textContent = ` · ${shown(each.held)} held · ${shown(each.sold)} sold · ${money.format(each.price)}`;
  return parts.element;
}

function show(list) {
  const grid = $("grid"), elements = list.map(card);
  if (elements.length !== grid.children.length || elements.some((element, index) => grid.children[index] !== element)) grid.replaceChildren(...elements);
}

let cells = { columns: 1, size: 1, list: [] };
function drawMap(list) {
  const canvas = $("map"), width = canvas.clientWidth;
  const size = Math.max(4, Math.min(26, Math.sqrt(width * Math.min(innerHeight * 0.45, 420) / list.length)));
  const columns = Math.max(1, Math.floor(width / size));
  canvas.style.height = `${Math.ceil(list.length / columns) * size}px`;
  const [context, , , scale] = canvasOf("map");
  const [left, held, sold] = ["left", "held", "sold"].map(resolved);
  const gap = size > 6 ? scale : 0;
  list.forEach((each, index) => {
    const x = (index % columns) * size * scale, y = Math.floor(index / columns) * size * scale, side = size * scale - gap;
    context.globalAlpha = 1;
    context.fillStyle = sold;
    context.fillRect(x, y, side, side);
    context.fillStyle = left; // filled from below, as far as it is left
    context.fillRect(x, y + side * (1 - share(each)), side, side * share(each));
    if (each.held && received(each)) {
      const part = Math.max(each.held / received(each), 0.12);
      context.fillStyle = held;
      context.fillRect(x, y + side * (1 - share(each)) - side * part, side, side * part);
    }
  });
  canvas.setAttribute("aria-label", `${list.length} products, ${list.filter((each) => each.stock === 0).length} of them sold out`);
  cells = { columns, size, list };
}
$("map").addEventListener("pointermove", (event) => {
  const at = Math.floor(event.offsetY / cells.size) * cells.columns + Math.floor(event.offsetX / cells.size), each = cells.list[at];
  text("hint", each ? `${each.name} (${each.id}): ${shown(each.stock)} left, ${shown(each.held)} held, ${shown(each.sold)} sold` : "");
});

function drawProducts() {
  const list = [...products.values()].sort((a, b) => a.id - b.id), wanted = $("search").value.trim().toLowerCase();
  const isMap = list.length > MAX_CARDS;
  document.body.classList.toggle("one", list.length === 1);
  $("search").hidden = $("map").hidden = $("hint").hidden = !isMap;
  const more = leftOut ? `, and ${shown(leftOut)} more that are not shown` : "";
  text("products-title", list.length ? `${shown(list.length)} ${list.length === 1 ? "product" : "products"}, ${shown(list.filter((each) => each.stock === 0).length)} with nothing left${more}` : "No products");
  if (!isMap) { show(list); return; }
  drawMap(list);
  if (wanted) {
    show(list.filter((each) => each.name.toLowerCase().includes(wanted) || String(each.id) === wanted).slice(0, 24));
    return;
  }
  const since = Date.now() - 10000; // the products that sell most now, then those with the least left
  for (const each of list) each.sales = each.sales.filter(([moment]) => moment > since);
  const selling = list.filter((each) => each.sales.length).sort((a, b) => sum(b.sales.map(([, count]) => count)) - sum(a.sales.map(([, count]) => count)) || a.id - b.id).slice(0, 8);
  const scarce = list.filter((each) => each.stock && !selling.includes(each)).sort((a, b) => share(a) - share(b) || a.id - b.id).slice(0, 8);
  show([...selling, ...scarce]);
}
$("search").addEventListener("input", () => { isDirty = true; draw(); });

let drawnAt = 0;
function draw() {
  drawState();
  if (document.hidden) return; // a tab in the background costs nothing
  drawNumbers();
  drawChart();
  drawHolds();
  if (isDirty || Date.now() - drawnAt > 5000) { drawProducts(); isDirty = false; drawnAt = Date.now(); }
}

document.addEventListener("visibilitychange", draw);
addEventListener("resize", () => { isDirty = true; draw(); });
setInterval(draw, 500);
$("access").addEventListener("submit", takeKey);
connect();
draw();
