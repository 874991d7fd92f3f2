// The device side of the terminal protocol: ids, sequence, one message at a time, the same bytes until a reply.

const RETRY_FIRST_MS = 1000;
const RETRY_MOST_MS = 15000;
const encoder = new TextEncoder();

/** RFC 9562 version 7: 48 bits of time, then random bits. */
export function uuid7(now = Date.now()) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let at = 0; at < 6; at += 1) bytes[at] = Math.floor(now / 2 ** (8 * (5 - at))) & 0xff;
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

export class Wire {
  /** `told(kind, document)` hears of every message: sent, again, reply. */
  constructor(terminal, csrf, told) {
    this.path = `/api/v1/terminals/${encodeURIComponent(terminal)}`;
    this.csrf = csrf;
    this.told = told;
    this.boot = crypto.randomUUID();
    this.seq = 0;
    this.turn = Promise.resolve();
  }

  /** Send one event; resolves with {reply, screen}. `session` is null before a visit. */
  event(type, body, session) {
    return this.inTurn(() => {
      this.seq += 1;
      const envelope = {
        v: 1, id: uuid7(), boot: this.boot, seq: this.seq, ts: new Date().toISOString(),
        mono_ms: Math.round(performance.now()), type, session, clerk: null, replay: false, body,
      };
      this.told("sent", { type, body });
      return this.send("/events", encoder.encode(JSON.stringify(envelope)), {
        "Content-Type": "application/json", "Idempotency-Key": envelope.id,
      });
    });
  }

  /** Send one JPEG; as for events. */
  face(jpeg, session) {
    return this.inTurn(() => {
      this.seq += 1;
      this.told("sent", { type: "face", bytes: jpeg.size });
      const headers = {
        "Content-Type": "image/jpeg", "Face-Id": uuid7(), "Face-Boot": this.boot,
        "Face-Seq": String(this.seq), "Face-Kind": "frame",
      };
      if (session) headers["Face-Session"] = session;
      return this.send("/faces", jpeg, headers);
    });
  }

  inTurn(work) {
    const result = this.turn.then(work);
    this.turn = result.catch(() => {});
    return result;
  }

  async send(path, body, headers) {
    let wait = RETRY_FIRST_MS;
    for (;;) {
      let response = null;
      try {
        response = await fetch(this.path + path, { method: "POST", headers: { ...headers, "X-CSRF-Token": this.csrf }, body });
      } catch {
        // No network: the same bytes again.
      }
      if (response?.ok) {
        const answer = await response.json();
        this.told("reply", answer.reply);
        return answer;
      }
      if (response && response.status !== 503) {
        const problem = await response.json().catch(() => ({ detail: response.statusText }));
        throw new Error(`${problem.detail} ${problem.do ?? ""}`);
      }
      this.told("again", {});
      await new Promise((resolve) => { setTimeout(resolve, wait * (0.5 + Math.random())); });
      wait = Math.min(wait * 2, RETRY_MOST_MS);
    }
  }

  /** The screen once it is newer than (session, rev); null when there is none yet. */
  async screen(session, rev, signal) {
    const query = new URLSearchParams({ session, rev });
    const response = await fetch(`${this.path}/screen?${query}`, { signal });
    if (response.status === 204) return null;
    if (!response.ok) throw new Error(String(response.status));
    return response.json();
  }
}
