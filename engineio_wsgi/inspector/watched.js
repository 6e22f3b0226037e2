// The panel of the watched session: its facts, its packets, and the button that closes it.
import { bytes, count, make, milliseconds, seconds, show } from "./formats.js";

const KEPT = 200; // packets that are shown
const CONFIRMED_WITHIN = 4000; // milliseconds

export class Watched {
  /** @param handlers onChange() when another session is watched, onClose(session) when it is to be closed */
  constructor(panel, { onChange, onClose }) {
    Object.assign(this, { panel, onChange, onClose, session: "", packet: 0, showsPayloads: false, missed: 0, timer: null });
    this.part = (id) => panel.querySelector(`#${id}`);
    this.part("unwatch").addEventListener("click", () => this.end());
    this.part("close").addEventListener("click", () => this.#close());
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.end());
  }

  /** The part of a question that is about it. */
  question() {
    return { watched: this.session, packet: this.packet };
  }

  begin(session) {
    if (session === this.session) return;
    Object.assign(this, { session, packet: 0, missed: 0 });
    this.part("packets").replaceChildren();
    this.part("facts").replaceChildren();
    show(this.part("missed"), "");
    show(this.part("watched-id"), session);
    show(this.part("packets-hint"), "Nothing has gone by yet.");
    this.#settle();
    this.part("close").disabled = false;
    this.panel.hidden = false;
    document.body.classList.add("watching");
    this.onChange();
  }

  end() {
    this.session = "";
    this.panel.hidden = true;
    document.body.classList.remove("watching");
    this.onChange();
  }

  // ---- closing takes two clicks

  #close() {
    const button = this.part("close");
    if (button.dataset.sure === "yes") {
      this.#settle();
      this.onClose(this.session);
      return;
    }
    button.dataset.sure = "yes";
    show(button, "Really close it?");
    this.timer = setTimeout(() => this.#settle(), CONFIRMED_WITHIN);
  }

  #settle() {
    clearTimeout(this.timer);
    this.part("close").dataset.sure = "no";
    show(this.part("close"), "Close this session");
  }

  onClosed({ session, done }) {
    if (session === this.session && !done) show(this.part("packets-hint"), "The session has ended already.");
  }

  // ---- what is shown

  /**
   * @param seen the answer of its worker; null if there is none
   * @param asked the question that was answered: the visitor may have chosen another session since then
   */
  show(seen, asked) {
    if (!this.session || !seen || asked.watched !== this.session || asked.packet !== this.packet) return;
    if (seen.row) this.#showFacts(seen.row);
    for (const packet of seen.packets) {
      if (packet[0] <= this.packet) continue;
      this.packet = packet[0];
      this.part("packets").prepend(this.#line(packet));
    }
    while (this.part("packets").children.length > KEPT) this.part("packets").lastChild.remove();
    this.missed += seen.missed;
    show(this.part("missed"), this.missed ? `${count(this.missed)} more were too fast to show` : "");
    const ended = seen.row === null;
    this.part("close").disabled = ended;
    const quiet = this.part("packets").children.length ? "" : "Nothing has gone by yet.";
    show(this.part("packets-hint"), ended ? `The session is closed${seen.reason ? `: ${seen.reason}` : ""}.` : quiet);
  }

  #showFacts(row) {
    show(this.part("watched-id"), `${row.id} #${row.number}`);
    const facts = {
      State: row.state, Transport: row.transport, Revision: row.protocol, Address: row.address ?? "–", User: row.user ?? "–",
      Age: seconds(row.age), "Last heard": `${seconds(row.quiet)} ago`,
      "Round trip": row.roundTrip === null ? "–" : milliseconds(row.roundTrip * 1000),
      Upgrade: row.upgradedIn === null ? "–" : `in ${milliseconds(row.upgradedIn * 1000)}`,
      Buffered: bytes(row.buffered), "Messages in": count(row.in), "Messages out": count(row.out),
    };
    const list = this.part("facts");
    if (!list.children.length) list.append(...Object.keys(facts).map((name) => make("div", {}, make("dt", {}, name), make("dd"))));
    Object.values(facts).forEach((text, index) => show(list.children[index].lastChild, text));
  }

  #line([, age, isOut, type, isBinary, size, payload]) {
    const time = new Date(Date.now() - age * 1000).toTimeString().slice(0, 8);
    const line = make("li", { class: isOut ? "out" : "in" }, make("time", {}, time), make("i", {}, isOut ? "out" : "in"),
      make("span", {}, isBinary ? `${type}, binary` : type), make("small", {}, bytes(size)));
    if (this.showsPayloads && payload) line.append(make("code", {}, payload));
    return line;
  }
}
