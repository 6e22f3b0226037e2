// The tables and bars of the page. Each is brought up to date in place, row by row.
import { bytes, count, make, milliseconds, rate, seconds, show } from "./formats.js";

const ROWS = 100; // sessions that are shown
const element = (id) => document.getElementById(id);
const sum = (values) => values.reduce((total, value) => total + value, 0);

/**
 * Bring the children of an element up to date.
 * @param items [key, item] in order; rows with the same key are kept
 * @param create makes the row of a key
 * @param update fills a row with an item
 */
function keep(parent, items, create, update) {
  const old = new Map([...parent.children].map((row) => [row.dataset.key, row]));
  let place = parent.firstElementChild;
  for (const [key, item] of items) {
    let row = old.get(key);
    old.delete(key);
    if (!row) {
      row = create(key);
      row.dataset.key = key;
    }
    if (row === place) place = place.nextElementSibling;
    else parent.insertBefore(row, place);
    update(row, item);
  }
  for (const row of old.values()) row.remove();
}

const cells = (...classes) => make("tr", {}, ...classes.map((name) => make("td", name ? { class: name } : {})));

function fill(row, texts) {
  texts.forEach((text, index) => text !== null && show(row.children[index], text));
}

// ---- sessions

const ORDERS = {
  newest: (row) => -row.age,
  oldest: (row) => row.age,
  traffic: (row) => row.in + row.out,
  buffered: (row) => row.buffered,
  slowest: (row) => row.roundTrip ?? 0,
  quietest: (row) => row.quiet,
};

export function showSessions(workers, order, watched) {
  const key = ORDERS[order];
  const rows = workers.flatMap((worker) => worker.sessions).sort((a, b) => key(b) - key(a)).slice(0, ROWS);
  const found = sum(workers.map((worker) => worker.found));
  show(element("found"), count(found));
  show(element("sessions-hint"), found > rows.length ? `The first ${rows.length} are shown.` : rows.length ? "" : "No session is open.");
  const create = (handle) => {
    const row = cells("", "", "wider", "", "number", "number wider", "number", "number wider", "number", "number");
    row.children[0].append(make("button", { class: "link" }, make("code"), make("small")));
    row.children[3].append(make("span", { class: "badge" }), make("small"));
    row.addEventListener("click", () => watched.begin(handle));
    return row;
  };
  keep(element("sessions").tBodies[0], rows.map((row) => [row.handle, row]), create, (row, session) => fillSession(row, session, watched));
}

function fillSession(row, session, watched) {
  row.classList.toggle("chosen", session.handle === watched.session);
  const [id, number] = row.children[0].firstChild.children;
  show(id, session.id);
  show(number, ` #${session.number}`);
  const [badge, revision] = row.children[3].children;
  badge.dataset.value = session.state === "open" ? session.transport : session.state;
  show(badge, session.state === "open" ? session.transport : session.state);
  show(revision, session.protocol === 4 ? "" : ` rev. ${session.protocol}`);
  fill(row, [
    null, session.user ?? "–", session.address ?? "–", null, seconds(session.age), seconds(session.quiet),
    session.roundTrip === null ? "–" : milliseconds(session.roundTrip * 1000), bytes(session.buffered), count(session.in),
    count(session.out),
  ]);
}

// ---- workers

export function showWorkers(workers, silent, history) {
  show(element("worker-count"), count(workers.length + silent.length));
  const items = [...workers.map((worker) => [worker.worker, worker]), ...silent.map((id) => [id, null])];
  items.sort(([a], [b]) => (a < b ? -1 : 1));
  const create = () => {
    const row = cells("", "wider", "number", "cpu", "number", "number", "number wider", "number wider", "number wider");
    row.children[3].append(make("i", { class: "meter" }), make("span"));
    return row;
  };
  keep(element("workers").tBodies[0], items, create, (row, worker) => {
    row.classList.toggle("silent", !worker);
    const id = row.dataset.key;
    if (!worker) {
      fill(row, [`${id} does not answer`, "", "", null, "", "", "", "", ""]);
      return;
    }
    const { load } = worker;
    fill(row, [
      load.taken ? id : `${id} (closing)`, `${load.host}, ${load.pid}`, count(worker.totals[0]), null, milliseconds(load.lag),
      rate(history.rateOf(worker.worker)), `${count(worker.moves.in)} in, ${count(worker.moves.out)} out`, bytes(load.memory), seconds(load.age),
    ]);
    const [meter, percent] = row.children[3].children;
    meter.style.setProperty("--part", Math.min(1, (load.cpu ?? 0) / 100));
    show(percent, load.cpu === null ? "–" : `${Math.round(load.cpu)} %`);
  });
}

// ---- bars

/** @param bars [name, number], drawn in proportion to the largest */
function showBars(parent, bars, colour) {
  const largest = Math.max(1, ...bars.map(([, number]) => number));
  const create = (name) => make("div", { class: `bar ${colour}` }, make("span", {}, name), make("b"), make("i"));
  keep(parent, bars, create, (bar, number) => {
    show(bar.children[1], count(number));
    bar.children[2].style.setProperty("--part", number / largest);
  });
}

const STEPS = [[0.025, "up to 25 ms"], [0.1, "up to 100 ms"], [0.25, "up to 250 ms"], [1, "up to 1 s"], [Infinity, "longer"]];

export function showUpgrades(workers) {
  const durations = workers.flatMap((worker) => worker.upgrades.seconds).sort((a, b) => a - b);
  const won = sum(workers.map((worker) => worker.upgrades.won));
  const failed = sum(workers.map((worker) => worker.upgrades.failed));
  show(element("upgrade-count"), `${count(won)} done, ${count(failed)} abandoned`);
  let counted = 0;
  const bars = STEPS.map(([bound, name]) => {
    const upTo = durations.findLastIndex((duration) => duration <= bound) + 1;
    const number = upTo - counted;
    counted = upTo;
    return [name, number];
  });
  showBars(element("upgrades"), durations.length ? bars : [], "websocket");
  const part = (share) => milliseconds(durations[Math.min(durations.length - 1, Math.floor(durations.length * share))] * 1000);
  show(element("upgrade-hint"), durations.length
    ? `The latest ${durations.length}, from the WebSocket's handshake to the switch: median ${part(0.5)}, 95 % within ${part(0.95)}.`
    : "No session has been upgraded yet.");
}

function added(workers, field) {
  const all = new Map();
  for (const worker of workers) {
    for (const [name, number] of Object.entries(worker[field])) all.set(name, (all.get(name) ?? 0) + number);
  }
  return [...all].sort(([, a], [, b]) => b - a);
}

export function showCloses(workers) {
  const closes = added(workers, "closes");
  show(element("close-count"), count(sum(closes.map(([, number]) => number))));
  showBars(element("closes"), closes, "polling");
}

// ---- refusals

export function showRefusals(workers) {
  const kinds = new Map();
  for (const refusal of workers.flatMap((worker) => worker.refusals)) {
    const key = `${refusal.code} ${refusal.name}`;
    const known = kinds.get(key);
    const [latest, count] = [!known || refusal.age < known.age ? refusal : known, (known?.count ?? 0) + refusal.count];
    kinds.set(key, { ...latest, count });
  }
  const sorted = [...kinds].sort(([, a], [, b]) => b.count - a.count);
  show(element("refusal-count"), count(sum(sorted.map(([, refusal]) => refusal.count))));
  const create = () => make("li", {}, make("p", {}, make("b"), " ", make("span"), " ", make("small")), make("p", { class: "advice" }));
  keep(element("refusals"), sorted, create, (item, refusal) => {
    const [number, message, when] = item.firstChild.children;
    show(number, `${count(refusal.count)} ×`);
    show(message, `${refusal.message} (code ${refusal.code})`);
    show(when, `last ${seconds(refusal.age)} ago${refusal.address ? `, from ${refusal.address}` : ""}`);
    show(item.lastChild, refusal.advice);
  });
}
