// SPDX-License-Identifier: FSL-1.1-ALv2
// A negotiation's page is replaced with each step: what a person opened stays open, and the keyboard stays where it was.
(() => {
  const summaries = (page) => {
    const times = {};
    return [...page.querySelectorAll("summary")].map((s) => {
      const name = s.textContent;
      times[name] = (times[name] ?? 0) + 1;
      return [name + times[name], s];
    });
  };
  let open = new Set(), focused;
  document.addEventListener("htmx:sseBeforeMessage", (e) => {
    open = new Set();
    focused = undefined;
    for (const [key, s] of summaries(e.target)) {
      if (s.parentElement.open) open.add(key);
      if (s === document.activeElement) focused = key;
    }
  });
  document.addEventListener("htmx:sseMessage", (e) => {
    for (const [key, s] of summaries(e.target)) {
      if (open.has(key)) s.parentElement.open = true;
      if (key === focused) s.focus({ focusVisible: true, preventScroll: true });
    }
  });
})();
