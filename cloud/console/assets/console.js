// SPDX-License-Identifier: FSL-1.1-ALv2
// A negotiation's page is replaced with each step: what a person opened stays open, and the keyboard stays where it was.
(() => {
  // What can be used, each under what it is and says; a number tells apart what says the same.
  const places = (page) => {
    const times = {};
    return [...page.querySelectorAll("a[href], button, summary, input:not([type=hidden]), textarea")].map((e) => {
      const name = [e.tagName, e.name, e.textContent].join();
      times[name] = (times[name] ?? 0) + 1;
      return [name + times[name], e];
    });
  };
  let open = new Set(), focused;
  document.addEventListener("htmx:sseBeforeMessage", (e) => {
    open = new Set();
    focused = undefined;
    for (const [key, at] of places(e.target)) {
      if (at.matches("details[open] > summary")) open.add(key);
      if (at === document.activeElement) focused = key;
    }
  });
  document.addEventListener("htmx:sseMessage", (e) => {
    for (const [key, at] of places(e.target)) {
      if (open.has(key)) at.parentElement.open = true;
      if (key === focused) at.focus({ focusVisible: true, preventScroll: true });
    }
  });
})();
