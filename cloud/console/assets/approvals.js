// SPDX-License-Identifier: FSL-1.1-ALv2
// Decisions and sign-offs are signed here, with a key (ECDSA P-256) that the browser made and lets nobody read, this script included.
(() => {
  const inbox = document.querySelector("[data-approvals]");
  if (!inbox) return;
  const person = inbox.dataset.approvals;
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  const utf8 = (text) => new TextEncoder().encode(text);
  const base64url = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

  const store = (mode, use) => new Promise((resolve, reject) => {
    const opening = indexedDB.open("kaphera", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("approval-keys");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const request = use(opening.result.transaction("approval-keys", mode).objectStore("approval-keys"));
      request.onsuccess = () => { opening.result.close(); resolve(request.result); };
      request.onerror = () => { opening.result.close(); reject(request.error); };
    };
  });
  const ownKey = () => store("readonly", (s) => s.get(person));

  // publicHalf has the members of RFC 7638 only, in their order.
  const publicHalf = async (pair) => {
    const { crv, kty, x, y } = await crypto.subtle.exportKey("jwk", pair.publicKey);
    return { crv, kty, x, y };
  };

  const sha256 = (text) => crypto.subtle.digest("SHA-256", utf8(text));
  const thumbprint = async (pair) => base64url(await sha256(JSON.stringify(await publicHalf(pair))));

  const sign = async (pair, typ, claims) => {
    const part = (value) => base64url(utf8(JSON.stringify(value)));
    const input = part({ alg: "ES256", kid: await thumbprint(pair), typ }) + "." + part(claims);
    return input + "." + base64url(await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, pair.privateKey, utf8(input)));
  };

  const post = async (path, body) => {
    const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html"); // the console's error page, in the person's language
    throw new Error(page.querySelector(".detail")?.textContent ?? inbox.dataset.failed);
  };

  const attempt = async (within, work) => {
    const message = within.querySelector("[data-message]"), buttons = within.querySelectorAll("button");
    buttons.forEach((b) => { b.disabled = true; });
    try {
      message.textContent = await work() ?? "";
    } catch (e) {
      message.textContent = e.message || inbox.dataset.failed;
    } finally {
      buttons.forEach((b) => { b.disabled = false; });
    }
  };

  const maker = inbox.querySelector("[data-key]");
  maker.addEventListener("click", () => attempt(inbox, async () => {
    let pair = await ownKey();
    if (!pair) {
      pair = await crypto.subtle.generateKey(algorithm, false, ["sign", "verify"]);
      await store("readwrite", (s) => s.put(pair, person));
    }
    await post("/approvals/keys", { publicKey: await publicHalf(pair) });
    if ("reload" in maker.dataset) location.reload(); // the page shows who has keys
    return maker.dataset.done;
  }));

  document.querySelectorAll(".approval").forEach((item) => item.querySelector("form").addEventListener("submit", (e) => {
    e.preventDefault();
    const verdict = e.submitter?.value, { participant, provider, negotiation, offer, gate } = item.dataset;
    if (!verdict) return; // the Enter key in the comment decides nothing
    attempt(item, async () => {
      const pair = await ownKey();
      if (!pair) return inbox.dataset.missing;
      const now = Math.floor(Date.now() / 1000);
      const decision = await sign(pair, "kaphera-decision+jwt", {
        iss: person, aud: provider, negotiation, offer, gate, decision: verdict, comment: new FormData(e.target).get("comment"), iat: now, exp: now + 600, jti: crypto.randomUUID(),
      });
      await post(`/participants/${encodeURIComponent(participant)}/negotiations/${encodeURIComponent(negotiation)}/decisions`, { decision });
      location.reload();
    });
  }));

  // What is signed is what the page shows: hashes are made here, of the content and of the sentences.
  document.querySelectorAll(".sign-off").forEach((form) => {
    form.querySelector("button").disabled = false;
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      attempt(form, async () => {
        const pair = await ownKey();
        if (!pair) return inbox.dataset.missing;
        const { useCase, revision, listed, unlisted } = form.dataset, texts = (selector) => [...form.querySelectorAll(selector)].map((element) => element.textContent);
        if (listed && !listed.split(" ").includes(await thumbprint(pair))) return unlisted;
        const hex = async (text) => [...new Uint8Array(await sha256(text))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
        const signed = await sign(pair, "kaphera-revision+jwt", {
          iss: person, useCase, revision: Number(revision), hash: await hex(texts("[data-content]")[0]), read: await hex(texts("[data-read] li").join("\n")), language: document.documentElement.lang,
          signers: texts("[data-signer]"), iat: Math.floor(Date.now() / 1000),
        });
        await post(`/use-cases/${encodeURIComponent(useCase)}/revisions/${revision}/sign-off`, { signed });
        location.reload();
      });
    });
  });
})();
