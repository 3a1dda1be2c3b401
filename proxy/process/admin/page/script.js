"use strict";
// All text from the proxy goes into the page as text, never as markup: whoever names a key or a node controls it.
// A reply that grows large unforeseen is told when it has so many bytes, not at its end.
const POINTS = 180, STEP = 5, LARGE = 131072;
const byId = id => document.getElementById(id);
const history_ = { all: { requests: [], errors: [], p99: [] }, nodes: new Map() };
let before = null, paused = false, steps = 0, said = "";

function make(name, text, style) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (style) made.className = style;
  return made;
}
function holding(parent, ...children) { parent.append(...children); return parent; }
const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
const rate = value => number(value, value < 10 ? 1 : 0);
function millis(value) {
  if (value === null || value === undefined) return "–";
  return value < 1 ? `${number(value, 2)} ms` : value < 1000 ? `${number(value, value < 10 ? 1 : 0)} ms` : `${number(value / 1000, 1)} s`;
}
function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit++; }
  return `${value.toFixed(unit && value < 100 ? 1 : 0)} ${units[unit]}`;
}
function length(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} days`;
}
// In UTC, as the sentence at the top and the log have it; what is not of today has its day.
function clock(seconds, now = before?.time ?? seconds) {
  const [day, time] = new Date(seconds * 1000).toISOString().slice(0, 19).split("T");
  return now - seconds < 43200 || new Date(now * 1000).toISOString().startsWith(day) ? time : `${day.slice(5)} ${time.slice(0, 5)}`;
}
// Hues that are told apart by most eyes, in an order that keeps neighbours distant.
const HUES = [212, 160, 32, 285, 350, 100, 250, 55, 190, 320, 130, 10];
let places = [];
const tone = index => { const place = places.indexOf(index); return `hsl(${HUES[place % HUES.length]} ${place < HUES.length ? 62 : 40}% 52%)`; };
const SVG = "http://www.w3.org/2000/svg";

function spark(points, kind, label, now) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 30`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", `spark ${kind}`);
  svg.setAttribute("role", "img");
  const known = points.filter(point => point !== null);
  const top = Math.max(...known, 0) || 1;
  svg.setAttribute("aria-label", known.length ? `${label}: ${now} now, at most ${number(top, 2)} within 15 minutes` : `${label}: nothing yet`);
  let line = "", drawn = false, first = null, last = 0;
  points.forEach((point, index) => {
    const x = POINTS - points.length + index;
    if (point === null) { drawn = false; return; }
    line += `${drawn ? "L" : "M"}${x} ${(29 - 27 * point / top).toFixed(2)}`;
    drawn = true; first ??= x; last = x;
  });
  for (const [style, d] of [["area", line && kind !== "time" ? `${line}L${last} 30L${first} 30Z` : ""], ["", line]]) {
    if (!d) continue;
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    if (style) path.setAttribute("class", style);
    svg.append(path);
  }
  return svg;
}
function remember(list, value) { list.push(value ?? null); if (list.length > POINTS) list.shift(); }
function track(label) {
  if (!history_.nodes.has(label)) history_.nodes.set(label, { requests: [], errors: [], p99: [] });
  return history_.nodes.get(label);
}
function step(status) {
  for (const [list, pace] of [[history_.all, status.pace], ...status.nodes.map(node => [track(node.node), node.pace])]) {
    remember(list.requests, pace.requests); remember(list.errors, pace.errors); remember(list.p99, pace.p99);
  }
}

function figure(name, value, unit, note, points, kind) {
  const box = make("div", null, "card figure");
  const shown = make("div", value, "value");
  if (unit) shown.append(" ", make("small", unit));
  holding(box, make("div", name, "name"), shown, make("div", note, "note"));
  if (points) box.append(spark(points, kind, name, value));
  return box;
}

function showVerdict(status) {
  const signs = { ok: "●", warn: "▲", part: "▲", down: "■" };
  byId("verdict").className = `verdict ${status.state}`;
  byId("sign").textContent = signs[status.state];
  byId("sentence").textContent = status.sentence;
  const gist = [status.state, status.trouble, ...status.nodes.filter(node => !node.up || node.slow).map(node => node.node)].join();
  if (gist !== said) byId("announce").textContent = status.sentence;
  said = gist;
  document.title = `${status.state === "ok" ? "" : `${signs[status.state]} `}Slotway`;
  byId("about").textContent = `version ${status.version} · up for ${length(status.uptime_seconds)} · layout ${status.epoch} · ${clock(status.time)} UTC`;
}

function showFigures(status) {
  const past = history_.all, clients = status.clients, absorbed = status.absorbed;
  byId("figures").replaceChildren(
    figure("Requests", rate(status.pace.requests), "/s", `${number(status.commands)} since the start`, past.requests, ""),
    figure("Latency p99", millis(status.pace.p99), "", `half take ${millis(status.pace.p50)} or less`, past.p99, "time"),
    figure("Errors to clients", rate(status.pace.errors), "/s", "replies that say what went wrong", past.errors, "errors"),
    figure("Slots served", number(status.slots_reachable), "", `of ${number(status.slots)}; ${status.slots_assigned === status.slots ? "all" : number(status.slots_assigned)} have an owner`),
    figure("Absorbed", number(absorbed.redirects + Math.max(0, absorbed.retries - absorbed.redirects)), "", `${number(absorbed.redirects)} redirects among them; ${number(absorbed.given_up)} ended in an error`),
    figure("Clients", number(clients.connected), "", `${number(clients.blocked)} blocked · ${number(clients.rejected)} turned away · ${bytes(clients.buffered_bytes)} held`),
  );
}

function showMap(status) {
  // Colours go by the order of the slots, so that a layout looks the same each time.
  places = [...new Set(status.slot_map.map(([, , owner]) => owner).filter(owner => owner >= 0))];
  const nodes = status.nodes, words = [];
  byId("map").replaceChildren(...status.slot_map.map(([first, last, owner]) => {
    const part = make("div"), node = nodes[owner];
    part.style.flex = `${last - first + 1} 0 0`;
    part.title = `${first}-${last}: ${node ? node.node + (node.up ? "" : ", which does not answer") : "nobody"}`;
    if (node) part.style.backgroundColor = tone(owner); else part.className = "nobody";
    if (node && !node.up) part.className = "gone";
    if (status.slot_map.length <= 12) words.push(part.title);
    return part;
  }));
  byId("map").setAttribute("aria-label", words.join("; ") || `${status.slot_map.length} ranges of slots`);
  byId("moves").replaceChildren(...status.moving.map(([slot]) => { const mark = make("i"); mark.style.left = `${slot / 163.84}%`; return mark; }));
  const most = Math.max(...status.heat, 0);
  byId("heat").replaceChildren(...status.heat.map((heat, at) => {
    const cell = make("i");
    cell.style.opacity = most ? (heat / most).toFixed(2) : 0;
    cell.title = `slots ${at * 64}-${at * 64 + 63}: about ${rate(heat)} requests/s`;
    return cell;
  }));
  byId("map-note").textContent = status.moving.length ? `▲ ${status.moving.length} half moved: ${status.moving.slice(0, 3).map(([slot, from, to]) => `${slot} from ${from} to ${to}`).join(", ")}` : "below: where the requests go";
  byId("legend").replaceChildren(...places.map(index => [nodes[index], index]).map(([node, index]) => {
    const dot = make("span", null, "dot");
    if (node.up) dot.style.background = tone(index); else dot.className = "dot gone";
    return holding(make("li"), dot, `${node.node} · ${number(node.slots)}`);
  }));
}

function nodeCard(node, index, status) {
  const card = make("li", null, `card node${!node.up ? " lost" : node.slow ? " slow" : ""}`);
  if (node.slots && node.up) card.style.setProperty("--tone", tone(index));
  const state = !node.up ? ["lost", "does not answer"] : node.slow ? ["slow", "slow"] : ["ok", "ok"];
  card.append(holding(make("h3"), make("span", node.node), make("span", state[1], `badge ${state[0]}`)));
  const ranges = node.slot_ranges.slice(0, 3).join(", ") + (node.slot_ranges.length > 3 ? ", …" : "");
  const what = node.role === "replica" ? `replica of ${node.replica_of}` : node.role === "empty" ? "no slots, nobody's replica" : `primary, slots ${ranges}`;
  card.append(make("p", node.zone ? `${what} · zone ${node.zone}` : what, "what"));
  const since = node.lost_since ?? node.slow_since;
  if (since) card.append(make("p", `since ${clock(since)} UTC (${length(status.time - since)}): ${node.why}; ${node.hurts}`, "why"));
  const trio = make("div", null, "trio");
  for (const [name, value, bad] of [["requests/s", rate(node.pace.requests)], ["half within", millis(node.pace.p50)], ["p99", millis(node.pace.p99)], ["errors/s", rate(node.pace.errors), node.pace.errors > 0]]) {
    trio.append(holding(make("div"), make("span", name), make("b", value, bad ? "bad" : "")));
  }
  const past = track(node.node);
  card.append(trio, holding(make("div", null, "twin"), spark(past.requests, "", `${node.node}, requests a second`, rate(node.pace.requests)), spark(past.p99, "time", `${node.node}, p99 in milliseconds`, millis(node.pace.p99))));
  const more = make("p", null, "more");
  const facts = [["in flight", number(node.inflight)], ["queued", bytes(node.queued_bytes)], ["connections", number(node.connections)], ["failed for clients", number(node.failed)]];
  if (node.memory_bytes !== null) facts.push(["memory", bytes(node.memory_bytes) + (node.memory_limit_bytes ? ` of ${bytes(node.memory_limit_bytes)}` : "")]);
  if (node.lag_bytes !== null) facts.push(["behind its primary", bytes(node.lag_bytes)]);
  if (node.linked === false) facts.push(["link to its primary", "down"]);
  if (node.version) facts.push(["", node.version]);
  if (node.reached_at) facts.push(["reached at", node.reached_at]);
  facts.forEach(([name, value]) => more.append(holding(make("span"), name ? `${name} ` : "", make("b", value))));
  card.append(more);
  return card;
}

function showNodes(status) {
  const order = status.nodes.map((node, index) => [node, index]);
  const first = node => (node.slots ? +node.slot_ranges[0].split("-")[0] : 20000) + (node.up ? 0 : -30000) + (node.slow ? -25000 : 0);
  order.sort((one, other) => first(one[0]) - first(other[0]) || one[0].node.localeCompare(other[0].node));
  byId("nodes").replaceChildren(...order.map(([node, index]) => nodeCard(node, index, status)));
}

function table(place, columns, rows, none, wide) {
  if (!rows.length) { byId(place).replaceChildren(make("p", none, "none")); return; }
  const head = make("tr");
  columns.forEach(([name, style]) => { const cell = make("th", name, style && style.includes("text") ? "text" : ""); cell.scope = "col"; head.append(cell); });
  const body = make("tbody");
  rows.forEach(cells => {
    const row = make("tr");
    cells.forEach((value, at) => {
      const cell = make("td", value instanceof Node ? null : value, columns[at][1] ?? "");
      if (value instanceof Node) cell.append(value);
      if (at && columns[at][0]) cell.dataset.name = columns[at][0];
      row.append(cell);
    });
    body.append(row);
  });
  byId(place).replaceChildren(holding(make("table", null, wide ? "wide" : ""), holding(make("thead"), head), body));
}

function showEvents(status) {
  const signs = { info: "·", warning: "▲", error: "■" };
  byId("events").replaceChildren(...status.events.map(event => {
    const time = make("time", clock(event.time));
    time.dateTime = new Date(event.time * 1000).toISOString();
    const sign = make("b", signs[event.severity]);
    sign.title = event.severity;
    return holding(make("li", null, event.severity), time, sign, make("span", event.text));
  }));
}

function showLists(status) {
  table("keys", [["key", "text key"], ["requests/s"], ["writes"], ["by", "text"], ["slot"], ["node", "text whole"]],
    status.hot_keys.slice(0, 10).map(hot => [hot.key || "(empty)", rate(hot.requests), `${Math.round(hot.writes * 100)} %`, hot.command, hot.slot, hot.node]), "No key is asked for often.", true);
  table("slow", [["request", "text key"], ["took", "whole"], ["here and there", ""], ["node", "text whole"], ["at", "whole"], ["client", "text whole"]],
    status.slow.slice(0, 10).map(slow => {
      const split = make("span", null, "split"), all = slow.here + slow.at_node || 1;
      split.title = `${millis(slow.here)} here, ${millis(slow.at_node)} at the node`;
      [slow.here, slow.at_node].forEach(part => { const bar = make("i"); bar.style.flex = `${part / all} 0 0`; split.append(bar); });
      split.append(make("span", split.title, "unseen"));
      return [slow.request.length > 44 ? `${slow.request.slice(0, 43)}…` : slow.request, millis(slow.here + slow.at_node), split, slow.node, clock(slow.time), slow.client];
    }), "No request took long.", true);
  table("slots", [["slot"], ["requests/s"], ["node", "text"]], status.hot_slots.map(hot => [hot.slot, rate(hot.requests), hot.node]), "No slot is asked for often.");
  table("large", [["what", "text"], ["bytes", "whole"], ["times"], ["key", "text key"], ["node", "text"]],
    status.large.map(large => [`${large.what} of ${large.command}`, bytes(large.bytes) + (large.bytes === LARGE ? " or more" : ""), number(large.times), large.key, large.node]), "Nothing large within 15 minutes.", true);
}

function showClients(status, seconds) {
  byId("clients-note").textContent = status.clients.connected > status.top_clients.length ? `the ${status.top_clients.length} that cost most of ${number(status.clients.connected)}` : "";
  byId("libraries").replaceChildren(...Object.entries(status.libraries).map(([name, count]) => make("li", `${name}: ${number(count)}`)));
  const then = new Map((before?.top_clients ?? []).map(client => [client.id, client]));
  const pace = (client, what) => { const old = then.get(client.id); return old && seconds > 0 ? (client[what] - old[what]) / seconds : null; };
  const rows = status.top_clients.map(client => ({ client, rate: pace(client, "commands") ?? 0 })).sort((one, other) => other.rate - one.rate || one.client.id - other.client.id);
  table("clients", [["client", "text"], ["requests/s"], ["requests"], ["in"], ["out"], ["held"], ["last command", "text"], ["library", "text"], ["user", "text"]],
    rows.map(({ client, rate: now }) => [client.name ? `${client.name} (${client.address})` : client.address, rate(now), number(client.commands), bytes(client.received_bytes), bytes(client.sent_bytes), bytes(client.held_bytes), client.command, client.library, client.user]), "Nobody is connected.", true);
}

function showDatabases(status, seconds) {
  byId("databases-section").hidden = !status.databases.length;
  const then = new Map((before?.databases ?? []).map(one => [one.database, one.requests]));
  const pace = one => then.has(one.database) && seconds ? (one.requests - then.get(one.database)) / seconds : 0;
  table("databases", [["database", "text"], ["requests/s"], ["requests"], ["keys"], ["clients"], ["slot"], ["node", "text whole"]],
    status.databases.map(one => [one.database, rate(pace(one)), number(one.requests), one.keys === null ? "–" : number(one.keys), number(one.clients), one.slot, one.node ?? "nowhere"]), "", true);
}

function show(status) {
  const seconds = before ? Math.max(1, status.time - before.time) : 0;
  showVerdict(status);
  if (++steps % STEP === 0) step(status);
  // Whoever reads a hidden page reads nothing, and whoever selects text wants to keep it.
  if (document.hidden || paused || !getSelection().isCollapsed) return;
  showFigures(status); showMap(status); showNodes(status); showEvents(status); showDatabases(status, seconds); showLists(status); showClients(status, seconds);
  before = status;
}

function lost() {
  byId("verdict").className = "verdict lost";
  byId("sign").textContent = "■";
  byId("sentence").textContent = `The proxy does not answer${before ? ` since ${clock(before.time)} UTC` : ""}; what is below is what it said last.`;
}

byId("pause").onclick = () => { paused = !paused; byId("pause").setAttribute("aria-pressed", paused); byId("pause").textContent = paused ? "Paused" : "Pause"; };
const themes = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  byId("theme").textContent = `Theme: ${name}`;
  try { localStorage.setItem("theme", name); } catch { /* It is as the system has it next time. */ }
}
byId("theme").onclick = () => theme(themes[(themes.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % 3]);
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "p") byId("pause").click();
  if (event.key === "t") byId("theme").click();
});
try { theme(themes.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system"); } catch { theme("system"); }

async function begin() {
  try {
    const past = await (await fetch("/api/history")).json();
    for (const [label, line] of Object.entries(past.nodes)) history_.nodes.set(label, line);
    history_.all = past.all;
  } catch { /* There is none yet. */ }
  const stream = new EventSource("/api/stream");
  stream.onmessage = message => show(JSON.parse(message.data));
  stream.onerror = lost;
}
begin();
