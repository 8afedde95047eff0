// The actions that the model knows, as buttons that enter a sentence.
"use strict";

const OWN_GROUP = 3; // so many actions whose names begin with the same word are a group of their own

class KnownActions {
  /**
   * @param root    Element that receives the list; it stays empty if there are no actions.
   * @param actions [{ name, caption }]
   * @param choose  Called with the caption of the action whose button is pressed.
   */
  constructor(root, actions, choose) {
    if (!actions.length) return;
    const button = ({ name, caption }) => {
      const made = element("button", { type: "button", textContent: name, title: caption, tabIndex: -1 });
      made.addEventListener("click", () => {
        this.#enter(made);
        choose(caption);
      });
      return made;
    };
    const groups = groupsOf(actions).map(([ariaLabel, group]) =>
      element("div", { role: "group", ariaLabel }, ...group.map(button)),
    );
    const list = element("div", { className: "chips", role: "toolbar", ariaLabel: "Known actions" }, ...groups);
    this.buttons = [...list.querySelectorAll("button")];
    this.#enter(this.buttons[0]);
    list.addEventListener("keydown", (event) => this.#step(event));
    root.append(element("p", {}, `Examples: the ${actions.length} known actions`), list);
  }

  /** Make a button the one that the Tab key reaches. */
  #enter(button) {
    if (this.current) this.current.tabIndex = -1;
    this.current = button;
    button.tabIndex = 0;
  }

  /** Move the focus with the arrow keys, Home and End. */
  #step(event) {
    const last = this.buttons.length - 1;
    const index = this.buttons.indexOf(this.current);
    const [before, after] = [Math.max(0, index - 1), Math.min(last, index + 1)];
    const next = { ArrowLeft: before, ArrowUp: before, ArrowRight: after, ArrowDown: after, Home: 0, End: last };
    if (!(event.key in next)) return;
    event.preventDefault();
    this.#enter(this.buttons[next[event.key]]);
    this.current.focus();
  }
}

/** Actions in [label, actions] by the first word of their names; those of small groups are together at the start. */
function groupsOf(actions) {
  const word = ({ name }) => name.split(/[\s_-]/)[0];
  const sorted = [...actions].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const all = [...new Set(sorted.map(word))].map((first) => [first, sorted.filter((action) => word(action) === first)]);
  const large = all.filter(([, group]) => group.length >= OWN_GROUP);
  const others = all.filter(([, group]) => group.length < OWN_GROUP).flatMap(([, group]) => group);
  return others.length ? [["various", others], ...large] : large;
}
