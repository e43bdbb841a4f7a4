// All of this is an addition: without JavaScript the page stands as it is.

// Sorts a table by a column: a click or the keyboard goes from ascending to descending to the
// order of the page. Without JavaScript the tables stand as they are.
(() => {
  const words = new Intl.Collator(undefined, { numeric: true });
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    if (rows.length < 2) continue;
    heads.forEach((head, column) => {
      // Cells that hold numbers say them; a column without any sorts as text.
      const number = (row) => parseFloat(row.cells[column].dataset.order);
      const numeric = rows.some((row) => !isNaN(number(row)));
      const compare = (a, b, sign) => {
        const [x, y] = [a.cells[column].textContent, b.cells[column].textContent];
        if (!numeric) return sign * words.compare(x, y);
        const [m, n] = [number(a), number(b)];
        // Rows without a number stay last in both directions.
        if (isNaN(m) || isNaN(n)) return isNaN(m) - isNaN(n);
        return sign * (m - n);
      };
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "" }[head.ariaSort] ?? "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (next) head.ariaSort = next;
        const sign = next === "descending" ? -1 : 1;
        body.append(...(next ? rows.toSorted((a, b) => compare(a, b, sign)) : rows));
      });
    });
  }
})();

// A box above a long table leaves the rows that have all of its words.
(() => {
  const LONG = 12;
  for (const region of document.querySelectorAll(".scroll")) {
    const rows = [...region.querySelectorAll("tbody tr")];
    if (rows.length < LONG) continue;
    const box = document.createElement("input");
    Object.assign(box, { type: "search", placeholder: `filter ${rows.length} rows`, className: "filter" });
    box.ariaLabel = `rows of ${region.ariaLabel} that contain`;
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
    region.before(box);
  }
})();

// Each table can be saved as CSV, each figure as SVG and PNG. The folders `tables` and `figures`
// beside the page have them too, tables with all digits.
(() => {
  const save = (content, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const name = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 80) || "saved";
  const bar = (...entries) => {
    const row = document.createElement("p");
    row.className = "save";
    for (const [label, words, action] of entries) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", textContent: label, ariaLabel: words });
      button.addEventListener("click", action);
      row.append(button);
    }
    return row;
  };
  // A number stays one, with a minus that spreadsheets know. A text that begins like a formula, which
  // they would run, gets an apostrophe, but not a number with its interval.
  const content = (cell) => {
    const text = `${cell.textContent.trim()}${cell.title && ` (${cell.title})`}`.replace(/\u2212/g, "-").replace(/\u00a0/g, " ");
    const formula = /^\s*[=+\-@\t\r＝＋－＠]/.test(text) && !cell.dataset.order;
    return `"${(formula ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  for (const region of document.querySelectorAll(".scroll")) {
    const title = region.ariaLabel;
    region.after(bar(["CSV", `save ${title} as CSV`, () => {
      const rows = [...region.querySelectorAll("tr")].filter((row) => !row.hidden);
      const lines = rows.map((row) => [...row.cells].map(content).join(","));
      save(new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv" }), `${name(title)}.csv`);
    }]));
  }
  // The colours of the page are variables.
  const drawn = (svg) => {
    const copy = svg.cloneNode(true), { width, height } = svg.viewBox.baseVal;
    copy.setAttribute("xmlns", svg.namespaceURI);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.querySelectorAll(".muted-series").forEach((part) => part.setAttribute("opacity", 0.12));
    const look = getComputedStyle(document.documentElement);
    const text = new XMLSerializer().serializeToString(copy);
    return text.replace(/var\((--[\w-]+)\)/g, (_, key) => look.getPropertyValue(key).trim().replaceAll('"', "'"));
  };
  for (const figure of document.querySelectorAll("figure:has(svg)")) {
    const shown = () => [...figure.querySelectorAll("svg")].find((svg) => svg.getClientRects().length);
    const title = name(figure.querySelector("svg").getAttribute("aria-label"));
    const svg = () => new Blob([drawn(shown())], { type: "image/svg+xml" });
    figure.append(bar(
      ["SVG", "save the figure as SVG", () => save(svg(), `${title}.svg`)],
      ["PNG", "save the figure as PNG", () => {
        const { width, height } = shown().viewBox.baseVal, picture = new Image(), sharp = 2;
        picture.addEventListener("load", () => {
          const canvas = Object.assign(document.createElement("canvas"), { width: sharp * width, height: sharp * height });
          const pen = canvas.getContext("2d");
          pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--paper");
          pen.fillRect(0, 0, canvas.width, canvas.height);
          pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
          canvas.toBlob((blob) => save(blob, `${title}.png`));
        });
        picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(drawn(shown()))}`;
      }],
    ));
  }
})();

// Where a table is wider than its room, the columns that are not needed at first are folded, the last
// one first, until it fits. A button shows them. Paper and CSV files have all of them. What is still
// too wide is stacked on a phone: each row is a block there, and each of its figures has its heading.
for (const region of document.querySelectorAll(".scroll")) {
  const table = region.querySelector("table"), heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.textContent);
  for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, n) => { cell.dataset.head = names[n]; });
  const later = heads.filter((head) => "later" in head.dataset).reverse();
  const button = Object.assign(document.createElement("button"), { type: "button", className: "columns" });
  if (later.length) region.nextElementSibling.prepend(button);
  let all = false, width = 0;
  const fold = (head, folded) => {
    for (const row of table.rows) row.cells[head.cellIndex].classList.toggle("folded", folded);
  };
  const isWide = () => region.scrollWidth > region.clientWidth + 1;
  const fit = () => {
    width = region.clientWidth;
    region.classList.remove("stacked");
    later.forEach((head) => fold(head, false));
    const folded = later.filter((head) => {
      const wide = isWide();
      if (wide) fold(head, true);
      return wide;
    });
    button.hidden = !folded.length;
    if (all) folded.forEach((head) => fold(head, false));
    const more = folded.map((head) => head.textContent).reverse().join(", ");
    button.textContent = all ? "fewer columns" : `more columns: ${more}`;
    region.classList.toggle("stacked", isWide());
  };
  button.addEventListener("click", () => {
    all = !all;
    fit();
  });
  new ResizeObserver(() => {
    if (region.clientWidth && region.clientWidth !== width) fit();
  }).observe(region);
}

// The nearest point says what it is when the pointer is near it, or where one taps.
(() => {
  const REACH = 14; // pixels of the figure
  const note = document.createElement("div");
  note.className = "tip";
  note.hidden = true;
  document.body.append(note);
  const hide = () => { note.hidden = true; };
  for (const svg of document.querySelectorAll("figure svg:has(.tips)")) {
    const tips = svg.querySelector(".tips"), around = svg.parentElement;
    const points = [...tips.children].map((tip) => ({
      x: tip.cx.baseVal.value, y: tip.cy.baseVal.value, words: tip.textContent,
    }));
    tips.remove(); // the titles that browsers show by themselves, after a second
    const tell = (event) => {
      const screen = svg.getScreenCTM();
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(screen.inverse());
      const away = (point) => Math.hypot(point.x - x, point.y - y);
      const near = points.reduce((best, point) => (away(point) < away(best) ? point : best));
      if (away(near) > REACH) return hide();
      note.textContent = near.words;
      note.hidden = false;
      const place = new DOMPoint(near.x, near.y).matrixTransform(screen);
      const { width, height } = note.getBoundingClientRect();
      note.style.left = `${Math.max(4, Math.min(place.x - width / 2, innerWidth - width - 4))}px`;
      note.style.top = `${place.y > height + 20 ? place.y - height - 12 : place.y + 12}px`;
    };
    around.addEventListener("pointermove", tell);
    around.addEventListener("pointerdown", tell);
    around.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") hide(); // a finger that is lifted leaves as well
    });
  }
  addEventListener("pointerdown", ({ target }) => { if (!target.closest?.("figure")) hide(); });
  addEventListener("scroll", hide, { passive: true });
})();

// A click on the name of a curve mutes the curve, and another one brings it back.
(() => {
  for (const svg of document.querySelectorAll("figure svg")) {
    const parts = [...svg.querySelectorAll("[data-series]")];
    for (const part of parts.filter((one) => one.querySelector("text"))) {
      const key = part.dataset.series, same = parts.filter((one) => one.dataset.series === key);
      if (new Set(parts.map((one) => one.dataset.series)).size < 2) continue;
      part.setAttribute("role", "button");
      part.setAttribute("tabindex", "0");
      part.setAttribute("aria-pressed", "false");
      const toggle = () => {
        const muted = part.getAttribute("aria-pressed") !== "true";
        part.setAttribute("aria-pressed", String(muted));
        same.forEach((one) => one.classList.toggle("muted-series", muted));
      };
      part.addEventListener("click", toggle);
      part.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        toggle();
      });
    }
  }
})();
