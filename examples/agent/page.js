"use strict";
// Names and meta come from other nodes. They are put into text nodes, never read as HTML.
const MAX_EVENTS = 200, SAMPLES = 120, SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const members = new Map(), order = [];
let own = "";

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A changed text only, so that what somebody has selected stays selected.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// What the library says in words: a line each, some of them indented.
function tell(node, text) {
  const lines = text.trim().split("\n");
  lines.forEach((line, at) => {
    const row = node.children[at] || node.appendChild(element("div"));
    row.className = line.startsWith("  ") ? "sub" : "";
    say(row, line.trim());
  });
  while (node.childElementCount > lines.length) node.lastChild.remove();
}

function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 60) return Math.floor(s) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 172800) return (s / 3600).toFixed(1) + " h";
  return (s / 86400).toFixed(1) + " d";
}

function short(n) {
  if (n >= 1e6) return (n / 1e6).toFixed(1) + " M";
  if (n >= 1e4) return (n / 1e3).toFixed(1) + " k";
  return n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
}

function metaOf(member) {
  if (!member.tags) return member.meta;
  return Object.entries(member.tags).map(([key, value]) => key + "=" + value).join(", ");
}

// ---- members

function rowOf(name) {
  const row = element("tr", "member"), button = element("button", "", name);
  row.dataset.name = name;
  const cells = [["", ""], ["state", ""], ["number", "since"], ["mono", "at"], ["number", "round trip"],
    ["number", "incarnation"], ["", "meta"]].map(([className, label]) => {
    const cell = element("td", className);
    if (label) cell.dataset.label = label;
    row.append(cell);
    return cell;
  });
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  cells[0].append(button);
  if (name === own) cells[0].append(element("span", "own", "this node"));
  const state = element("span"), word = element("span", "sign");
  state.append(word);
  cells[1].append(state);
  row.addEventListener("click", () => toggle(name));
  return { row, button, state, word, cells, why: null };
}

// Where a name is in the order, or belongs.
function placeOf(name) {
  let from = 0, to = order.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if (order[middle] < name) from = middle + 1; else to = middle;
  }
  return from;
}

function put(member) {
  const known = members.get(member.name);
  const entry = known || Object.assign(rowOf(member.name), { rtt: undefined });
  entry.member = member;
  entry.since = performance.now() - 1000 * member.since_seconds;
  if (member.rtt_ms !== undefined) entry.rtt = member.rtt_ms;
  if (!known) {
    const at = placeOf(member.name), next = order[at];
    $("members").insertBefore(entry.row, next === undefined ? null : members.get(next).row);
    members.set(member.name, entry);
    order.splice(at, 0, member.name);
  }
  show(entry);
}

function show(entry) {
  const { member, cells } = entry;
  entry.state.className = member.state;
  say(entry.word, member.state);
  say(cells[2], span((performance.now() - entry.since) / 1000));
  say(cells[3], member.addr);
  say(cells[4], entry.rtt === undefined ? "" : entry.rtt.toFixed(2) + " ms");
  say(cells[5], String(member.incarnation));
  say(cells[6], metaOf(member));
}

function forget(name) {
  const entry = members.get(name);
  if (!entry) return;
  if (entry.why) entry.why.remove();
  entry.row.remove();
  members.delete(name);
  order.splice(placeOf(name), 1);
}

function toggle(name) {
  const entry = members.get(name);
  if (window.getSelection().toString()) return;
  if (entry.why) {
    entry.why.remove();
    entry.why = null;
  } else {
    entry.why = element("tr", "why");
    const cell = element("td");
    cell.colSpan = 7;
    cell.append(element("div", "words"));
    entry.why.append(cell);
    entry.row.after(entry.why);
    explain(name);
  }
  entry.button.setAttribute("aria-expanded", String(entry.why !== null));
}

async function explain(name) {
  let text;
  try {
    const answer = await fetch("explain/" + encodeURIComponent(name));
    const plain = (answer.headers.get("content-type") || "").startsWith("text/plain");
    text = plain ? await answer.text() : "no explanation can be asked for by this name";
  } catch {
    text = "the agent does not answer";
  }
  const entry = members.get(name);
  if (entry && entry.why) tell(entry.why.querySelector(".words"), text);
}

// ---- events

const STATES = { join: "alive", alive: "alive", suspect: "suspect", dead: "dead", leave: "left" };

function note(word, name, rest, state) {
  const item = element("li"), time = element("time", "", new Date().toLocaleTimeString([], { hour12: false }));
  item.append(time, element("span", "word " + (state || ""), word), " ", element("span", "", name));
  if (rest) item.append(element("small", "", rest));
  $("events").prepend(item);
  while ($("events").childElementCount > MAX_EVENTS) $("events").lastChild.remove();
}

function changed(change) {
  if (change.addr && change.state && change.name) {
    put(change);
    note(change.event, change.name, change.reason || (change.event === "update" ? metaOf(change) : ""),
      STATES[change.event]);
    if (members.get(change.name).why) explain(change.name);
  } else if (change.event === "forgotten") {
    forget(change.name);
    note("forgotten", change.name);
  } else if (change.event === "conflict") {
    note("conflict", change.name, change.addr + " has this name, " + change.other + " claims it too", "dead");
  } else if (change.event === "refuted") {
    note("refuted", change.by || "somebody", "said that this node is " + change.accusation, "suspect");
  } else if (change.event === "awareness") {
    note("health score", String(change.score), "", change.score > 0 ? "suspect" : "alive");
  }
}

// ---- traffic

const PLOTS = [["packets", ["sent", "received"], ""], ["bytes", ["sent", "received"], "B"], ["drops", ["drops"], ""]];
let last = null;

function plotOf([name, series, unit]) {
  const figure = element("figure"), caption = element("figcaption");
  const image = document.createElementNS(SVG, "svg"), scale = element("div", "scale");
  image.setAttribute("viewBox", "0 0 " + (SAMPLES - 1) + " 100");
  image.setAttribute("preserveAspectRatio", "none");
  image.setAttribute("role", "img");
  image.setAttribute("aria-label", name + " a second");
  for (const y of [1, 50, 99]) {
    const line = document.createElementNS(SVG, "line");
    for (const [key, value] of [["x1", 0], ["x2", SAMPLES - 1], ["y1", y], ["y2", y]]) line.setAttribute(key, value);
    image.append(line);
  }
  caption.append(element("span", "name", name));
  const lines = series.map((which) => {
    const line = document.createElementNS(SVG, "polyline"), legend = element("i", which);
    line.setAttribute("class", which);
    line.id = name + "-" + which;
    image.append(line);
    caption.append(legend);
    return { which, line, legend, values: [] };
  });
  const chart = element("div", "chart"), top = element("span", "top");
  chart.append(image, top);
  scale.append(element("span", "", "two minutes ago"), element("span", "", "now"));
  figure.append(caption, chart, scale);
  $("plots").append(figure);
  return { lines, top, unit };
}
const plots = PLOTS.map(plotOf);

function sample(plot, rates) {
  plot.lines.forEach((line, at) => {
    line.values.push(rates[at]);
    if (line.values.length > SAMPLES) line.values.shift();
    const label = line.which === "drops" ? "" : line.which + " ";
    say(line.legend, label + short(rates[at]) + (plot.unit && " " + plot.unit));
  });
  const top = Math.max(1, ...plot.lines.flatMap((line) => line.values)) * 1.1;
  for (const { line, values } of plot.lines) {
    const first = SAMPLES - values.length;
    const points = values.map((value, at) => first + at + "," + (99 - 98 * value / top).toFixed(1));
    line.setAttribute("points", points.join(" "));
  }
  say(plot.top, short(top) + (plot.unit && " " + plot.unit));
}

// ---- the whole

function counted(stats) {
  for (const state of ["alive", "suspect", "dead", "left"]) say($("count-" + state), String(stats.members[state] || 0));
  say($("score"), String(stats.health.score));
  $("score").className = stats.health.score > 0 ? "suspect" : "alive";
  tell($("doubts"), stats.health.text);
  say($("dropped"), short(stats.drops_total));
  const drops = Object.entries(stats.drops).map(([reason, count]) => reason.replaceAll("_", " ") + " " + count);
  say($("drops"), drops.length ? "Dropped since the start: " + drops.join(", ") : "Nothing was dropped since the start.");
  for (const [name, rtt] of stats.rtt_ms) {
    const entry = members.get(name);
    if (entry) entry.rtt = rtt;
  }
  members.forEach(show);
  if (!document.hidden) members.forEach((entry, name) => { if (entry.why) explain(name); });
  const seconds = last ? stats.at_seconds - last.at_seconds : 0;
  if (seconds > 0.2) {
    const rate = (of) => (of(stats) - of(last)) / seconds;
    for (const at of [0, 1]) {
      const what = PLOTS[at][0];
      sample(plots[at], ["sent", "received"].map((way) => rate((s) => s[what][way])));
    }
    sample(plots[2], [rate((s) => s.drops_total)]);
  }
  if (!last || seconds > 0.2) last = stats;
}

function everything(state) {
  own = state.node.name;
  document.title = own + " – memberlist";
  say($("name"), own);
  say($("about"), state.node.addr + " over " + state.node.transport
    + (state.node.cluster && " · cluster " + state.node.cluster) + " · memberlist " + state.node.version);
  if (last && state.stats.at_seconds < last.at_seconds) last = null;
  const present = new Set(state.members.map((member) => member.name));
  for (const name of [...members.keys()]) if (!present.has(name)) forget(name);
  state.members.forEach(put);
  counted(state.stats);
  if (state.missed > 0) note("snapshot", "", state.missed + " messages were missed; this is how things are now");
}

function connected(yes) {
  $("link").className = yes ? "dim" : "lost";
  say($("link"), yes ? "live" : "the agent does not answer; trying again");
}

const source = new EventSource("events");
source.addEventListener("snapshot", (message) => { connected(true); everything(JSON.parse(message.data)); });
source.addEventListener("change", (message) => changed(JSON.parse(message.data)));
source.addEventListener("stats", (message) => counted(JSON.parse(message.data)));
source.addEventListener("error", () => {
  connected(false);
  // A browser gives up on an answer that is no stream: too many look on, or the agent ends.
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
});
