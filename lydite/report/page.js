"use strict";
// The browser of samples. Data reaches the page through textContent and attributes only, never as markup.
(() => {
  const PAGE = 20;
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("browser");
  const cards = [];
  data.tasks.forEach((task, t) => task.cards.forEach((card) => cards.push({ task, t, card, text: null })));

  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const percent = (share) => `${(share * 100).toFixed(1)}%`;
  const mark = (m) => {
    const found = document.querySelectorAll(".results > thead .mark")[m];
    return found ? found.cloneNode(true) : null;
  };

  // ------------------------------------------------------------------------------------------ drawing a card

  // [text, nats], or [text, nats, count] for tokens that spell characters only together: coloured by the character.
  const heat = ([text, nats, count]) => (nats === null ? 0 : Math.min(9, Math.floor((-nats * 1.25) / (count ? Math.max([...text].length, 1) : 1))));
  const told = ([, nats, count]) => (nats === null ? null : `${nats} nats${count ? ` over ${count} tokens` : `, p ${Math.exp(nats).toPrecision(2)}`}`);
  const words = (tokens) => el("div", { class: "words", dir: "auto" }, ...tokens.map((token) => el("span", { class: `k h${heat(token)}`, title: told(token) }, token[0])));
  const odds = (share) => {
    const bar = el("span", { class: "bar" });
    bar.style.setProperty("--w", percent(share));
    return [bar, el("span", { class: "share" }, percent(share))];
  };
  const prompt = (parts, shared) => parts.flatMap(([who, said]) => who === "shared"
    ? [el("details", { class: "shared" }, el("summary", {}, `the same beginning for every sample (${shared.length} characters)`), el("pre", { class: "said", dir: "auto" }, shared))]
    : [who ? el("b", { class: "role" }, who) : null, el("pre", { class: "said", dir: "auto" }, said)].filter(Boolean));

  const choice = (row, isGold) => el("li", { class: `${isGold ? "gold " : ""}${row.chosen ? "chosen" : ""}` },
    ...(row.context === undefined ? [] : [el("pre", { class: "said", dir: "auto" }, row.context)]),
    ...(row.failure !== undefined ? [el("span", { class: "bad" }, row.failure)] : [
      words(row.tokens), row.text === undefined ? null : el("div", { class: "words full", dir: "auto" }, row.text),
      el("div", { class: "odds" }, ...(row.share === undefined ? [] : odds(row.share)), el("span", { class: "nats" }, `${row.total} nats`),
        isGold ? el("span", { class: "is-gold" }, "gold") : null, row.chosen ? el("span", { class: "is-chosen" }, "chosen") : null),
    ]));

  const output = (one, gold) => {
    if (one.kind === "text") return [el("pre", { class: "output", dir: "auto" }, one.text), el("p", { class: "aside" }, one.note)];
    if (one.kind === "failure") return [el("p", { class: "bad" }, one.text)];
    if (one.kind === "labels") {
      return [el("ol", { class: "choices" }, ...one.labels.map(([name, share], i) => el("li", { class: gold.includes(i) ? "gold" : "" },
        el("div", { class: "words", dir: "auto" }, name), el("div", { class: "odds" }, ...odds(share)))))];
    }
    return [words(one.tokens), el("p", { class: "aside" }, one.note)];
  };

  const score = ([metric, value, status, note, by]) => el("div", {},
    el("dt", {}, metric, by === "auto" ? null : el("small", {}, ` ${by}`)),
    el("dd", {}, value, status === "ok" ? null : el("small", {}, ` ${status}`), note ? el("small", {}, ` ${note}`) : null));

  const answer = (given, m, card, task) => el("section", { class: `answer ${given.state}` },
    el("h4", {}, mark(m), data.models[m], el("span", { class: "state" }, given.state)),
    ...(given.prompt === undefined ? [] : prompt(given.prompt, task.shared)),
    given.choices === undefined ? null : el("ol", { class: "choices" }, ...given.choices.map((row, i) => choice(row, card.gold.includes(i)))),
    ...(given.outputs || []).flatMap((one) => output(one, card.gold)),
    el("dl", { class: "scores" }, given.read === null ? null : el("div", {}, el("dt", {}, "read as"), el("dd", {}, el("q", { dir: "auto" }, given.read))), ...given.scores.map(score)),
    given.flags.length ? el("ul", { class: "flags" }, ...given.flags.map((flag) => el("li", {}, flag))) : null);

  const draw = ({ task, card }, only) => el("article", { class: "card" },
    el("header", {}, el("span", { class: "of" }, task.name), el("span", { class: "id" }, card.id),
      ...card.labels.map(([key, label]) => el("span", { class: "chip" }, el("small", {}, key), ` ${label}`))),
    card.prompt.length ? el("div", { class: "prompt" }, ...prompt(card.prompt, task.shared)) : null,
    card.targets.length ? el("p", { class: "targets" }, el("small", {}, "target "), ...card.targets.map((target) => el("q", { dir: "auto" }, target))) : null,
    el("div", { class: "answers" }, ...card.answers.map((given, m) => given && (only < 0 || only === m) ? answer(given, m, card, task) : null)));

  // ---------------------------------------------------------------------------------------------- filtering

  const options = (pairs) => pairs.map(([value, name]) => el("option", { value }, name));
  const field = (label, control, wide) => el("label", { class: wide ? "wide" : null }, label, control);
  const task = el("select", { id: "pick-task" }, ...options([["", "all tasks"], ...data.tasks.map((one, t) => [t, one.name])]));
  const model = el("select", { id: "pick-model" }, ...options([["", "all models"], ...data.models.map((name, m) => [m, name])]));
  const states = [["", "any result"], ["right", "right"], ["wrong", "wrong"], ["scored", "scored"], ["failed", "failed"], ["flagged", "flagged"]];
  if (data.models.length > 1) states.push(["split", "models differ"]);
  const state = el("select", { id: "pick-state" }, ...options(states));
  const order = el("select", { id: "pick-order" }, ...options([["", "as chosen"], ["sure", "surest mistakes first"], ["unsure", "closest calls first"]]));
  const search = el("input", { id: "pick-text", type: "search", placeholder: "prompt, choice, output, id …", autocomplete: "off", spellcheck: "false" });
  const tally = el("p", { class: "tally", id: "tally", role: "status" });
  const list = el("div", { id: "cards" });
  const back = el("button", { type: "button" }, "← previous"), next = el("button", { type: "button" }, "next →"), where = el("span", {});
  let page = 0;

  const strings = (value, found) => {
    if (typeof value === "string") found.push(value);
    else if (Array.isArray(value)) {
      if (value.length && Array.isArray(value[0]) && typeof value[0][1] === "number") found.push(value.map((token) => token[0]).join(""));
      else value.forEach((one) => strings(one, found));
    } else if (value && typeof value === "object") Object.values(value).forEach((one) => strings(one, found));
    return found;
  };
  const haystack = (one) => (one.text ??= strings(one.card, []).join("\n").toLowerCase());
  const given = (one, only) => one.card.answers.filter((answer, m) => answer && (only < 0 || only === m));
  const fits = (one, wanted, only) => {
    const answers = given(one, only);
    if (!answers.length) return false;
    if (!wanted) return true;
    if (wanted === "split") return new Set(one.card.answers.filter(Boolean).map((answer) => answer.state)).size > 1;
    return answers.some((answer) => (wanted === "flagged" ? answer.flags.length > 0 : answer.state === wanted));
  };
  const shares = (answer) => (answer.choices || []).map((row) => row.share).filter((share) => share !== undefined).sort((a, b) => b - a);
  const surest = (one, only) => Math.max(-1, ...given(one, only).filter((answer) => answer.state === "wrong").map((answer) => shares(answer)[0] ?? -1));
  const closest = (one, only) => Math.min(2, ...given(one, only).map(shares).filter((all) => all.length > 1).map((all) => all[0] - all[1]));

  const chosen = () => {
    const t = task.value, only = model.value === "" ? -1 : Number(model.value), terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = cards.filter((one) => (t === "" || one.t === Number(t)) && fits(one, state.value, only) && terms.every((term) => haystack(one).includes(term)));
    const rank = { sure: (one) => -surest(one, only), unsure: (one) => closest(one, only) }[order.value];
    if (rank) found = found.map((one) => [rank(one), one]).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
    return { found, only };
  };

  const number = (count) => count.toLocaleString("en-US");
  const show = () => {
    const { found, only } = chosen();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((one) => draw(one, only)));
    const scope = task.value === "" ? data.tasks : [data.tasks[Number(task.value)]];
    const held = scope.reduce((sum, one) => sum + one.cards.length, 0), total = scope.reduce((sum, one) => sum + one.total, 0);
    tally.textContent = `${number(found.length)} of ${number(held)} samples`
      + (held < total ? `; this page holds ${number(held)} of ${number(total)}: failed ones first, then by a hash of their names. The run folder holds all.` : "");
    where.textContent = `page ${page + 1} of ${number(pages)}`;
    back.disabled = page === 0;
    next.disabled = page >= pages - 1;
  };

  // ------------------------------------------------------------------------------------------ events, copying

  let timer = 0;
  const restart = () => { page = 0; show(); };
  [task, model, state, order].forEach((control) => control.addEventListener("change", restart));
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(restart, 120); });
  const turn = (by) => { page += by; show(); root.scrollIntoView(); };
  back.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(input|select|textarea)$/i.test(event.target.tagName || "")) { event.preventDefault(); search.focus(); }
  });
  document.querySelectorAll("a[data-task]").forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    task.value = String(data.tasks.findIndex((one) => one.name === link.dataset.task));
    restart();
    document.getElementById("samples").scrollIntoView();
  }));

  const copyable = (node, text) => {
    const button = el("button", { type: "button", class: "copy" }, "copy");
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(text); button.textContent = "copied"; } catch { getSelection().selectAllChildren(node); button.textContent = "selected"; }
    });
    return button;
  };
  document.querySelectorAll(".signature code").forEach((code) => code.after(copyable(code, code.textContent)));
  document.querySelectorAll(".config").forEach((config) => {
    const json = config.querySelector("pre");
    config.querySelector("h4").append(copyable(json, json.textContent));
  });

  // Paper shows what was folded; a table of signatures that would fill dozens of sheets only if it was open already.
  const MOST_SIGNATURES = 300;
  const foldable = (fold) => !fold.open && (fold.closest("#signatures") === null || fold.querySelectorAll(".signature").length <= MOST_SIGNATURES);
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll(".results details, .warnings details, #signatures > details")].filter(foldable);
    unfolded.forEach((fold) => { fold.open = true; });
  });
  addEventListener("afterprint", () => unfolded.forEach((fold) => { fold.open = false; }));

  const links = new Map([...document.querySelectorAll(".sections a")].map((link) => [link.getAttribute("href").slice(1), link]));
  const watch = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
    if (isIntersecting) links.forEach((link, id) => (id === target.id ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
  }), { rootMargin: "-20% 0px -70% 0px" });
  links.forEach((_, id) => watch.observe(document.getElementById(id)));

  root.append(
    el("div", { class: "controls", role: "search" }, field("task", task), field("model", model), field("result", state), field("order", order), field("search ( / )", search, true)),
    tally, list, el("div", { class: "pager" }, back, where, next));
  root.hidden = false;
  document.getElementById("static").remove();
  show();
})();
