import type { Socket } from "socket.io";
import { type Disposable, DisposableStore } from "#shared/base/disposable.ts";
import type { EnvelopeId } from "#shared/base/ids.ts";
import { LOGIN_TIMEOUT_MS, SERVER_REQUESTS_IN_PROGRESS_MAX } from "#shared/base/limits.ts";
import { messageOf } from "#shared/base/result.ts";
import { RequestEnvelopeSchema, type RequestOutput, type RequestValue, requests } from "#shared/rendezvous/protocol.ts";
import { answerWrite, type RecentAnswers } from "./answers.ts";
import { type Answer, parseInput, refuse, type ServerError, type Services } from "./handler.ts";
import { type Challenge, checkLogin, enterAccount } from "./login.ts";
import { handlerOf } from "./requests.ts";
import { SendQueue, Session } from "./session.ts";

/**
 * One socket, from the challenge to its end.
 *
 *   challenged --login--> loggingIn --ok--> loggedIn --socket gone--> closed
 *        |                    '--refused--> closed
 *        '--------------+--LOGIN_TIMEOUT_MS--> closed
 *
 * The nonce is used up by leaving `challenged`: there is one login per nonce, right or wrong.
 */
type State =
  | { readonly kind: "challenged"; readonly challenge: Challenge }
  | { readonly kind: "loggingIn" }
  | { readonly kind: "loggedIn"; readonly session: Session }
  | { readonly kind: "closed" };

export interface ConnectionHost extends Services {
  readonly serverId: string;
  readonly recent: RecentAnswers;
  readonly counters: Counters;
  observe(request: { name: string; outcome: string; ms: number }): void;
}

/** Since the start of the process, for the health page. */
export interface Counters {
  requests: number;
  refusals: number;
  failures: number;
  malformed: number;
}

/** Challenges right away. */
export class Connection implements Disposable {
  readonly #host: ConnectionHost;
  readonly #socket: Socket;
  readonly #queue: SendQueue;
  readonly #address: string;
  readonly #onLogin: () => void;
  readonly #owned = new DisposableStore();
  readonly #inProgress = new Set<Promise<void>>();
  #state: State;

  constructor(host: ConnectionHost, socket: Socket, address: string, onLogin: () => void) {
    this.#host = host;
    this.#socket = socket;
    this.#queue = new SendQueue(socket);
    this.#address = address;
    this.#onLogin = onLogin;
    const nonce = host.env.random.bytes(32);
    const challenge = { nonce, serverId: host.serverId, host: socket.handshake.headers.host ?? "" };
    this.#state = { kind: "challenged", challenge };
    this.#owned.add(host.env.clock.setTimer(LOGIN_TIMEOUT_MS, () => this.#loginTimedOut()));
    socket.on("request", (...args: unknown[]) => this.#receive(args));
    socket.on("relay", (...args: unknown[]) =>
      this.#relayed(args, (session, frame) => host.relays.frame(session, frame)),
    );
    socket.on("relayAck", (...args: unknown[]) =>
      this.#relayed(args, (session, ack) => host.relays.acknowledge(session, ack)),
    );
    socket.onAny((event: unknown) => {
      if (event !== "request" && event !== "relay" && event !== "relayAck") this.#malformed();
    });
    socket.on("disconnect", () => this.dispose());
    // A packet that breaks the protocol; socket.io closes the connection by itself.
    socket.on("error", () => host.counters.malformed++);
    socket.emit("challenge", { nonce, serverId: host.serverId });
  }

  get loggedIn(): boolean {
    return this.#state.kind === "loggedIn";
  }

  /** Resolves when everything that is under way has been answered. */
  async idle(): Promise<void> {
    await Promise.all(this.#inProgress);
  }

  dispose(): void {
    const state = this.#state;
    this.#state = { kind: "closed" };
    this.#owned.dispose();
    if (state.kind === "loggedIn") this.#leave(state.session);
    if (this.#socket.connected) this.#socket.disconnect(true);
  }

  #leave(session: Session): void {
    leave(this.#host, session);
    session.ended();
  }

  #loginTimedOut(): void {
    if (this.#state.kind === "challenged" || this.#state.kind === "loggingIn") this.dispose();
  }

  #receive(args: readonly unknown[]): void {
    const reply = args.at(-1);
    // Without a function to answer with, or with more than one body, this is no client of ours.
    if (typeof reply !== "function" || args.length > 2) {
      this.#malformed();
      return;
    }
    if (!this.#queue.accepts) return;
    const { clock } = this.#host.env;
    const beganMs = clock.monotonicMs();
    const body = args.length === 2 ? args[0] : undefined;
    const work = this.#reply(body)
      .catch((error: unknown) => this.#failed(error))
      .then(({ answer, afterwards }) => {
        if (!answer.ok) this.#host.counters.refusals++;
        const outcome = answer.ok ? "ok" : answer.error.type;
        this.#host.observe({ name: nameOf(body), outcome, ms: clock.monotonicMs() - beganMs });
        if (this.#socket.connected) reply(answer);
        afterwards?.();
      })
      .catch((error: unknown) => {
        this.#failed(error);
        this.dispose();
      })
      .finally(() => this.#inProgress.delete(work));
    this.#inProgress.add(work);
  }

  /** Neither is answered: whoever breaks the rules of a relay loses it, whoever breaks the protocol is cut off. */
  #relayed(args: readonly unknown[], take: (session: Session, body: unknown) => boolean): void {
    const state = this.#state;
    if (state.kind === "closed") return;
    if (args.length !== 1 || state.kind !== "loggedIn" || !take(state.session, args[0])) this.#malformed();
  }

  #malformed(): void {
    this.#host.counters.malformed++;
    this.dispose();
  }

  /** A bug or a broken disk. The client learns only that; the log says more, without any input. */
  #failed(error: unknown): Reply {
    this.#host.counters.failures++;
    this.#host.env.log.error("request failed", { error: messageOf(error) });
    return {
      answer: refuse(
        "internal",
        "The server has a problem of its own. Try again later; if it stays, tell its operator.",
      ),
      afterwards: () => this.#loginEnded(),
    };
  }

  /** A login that was not accepted ends the connection: its nonce is used up. */
  #loginEnded(): void {
    if (this.#state.kind === "loggingIn") this.dispose();
  }

  async #reply(raw: unknown): Promise<Reply> {
    this.#host.counters.requests++;
    const envelope = parseInput(RequestEnvelopeSchema, raw);
    if (!envelope.ok) return { answer: envelope };
    const { key, name, input } = envelope.value;
    if (name === "login") return this.#logIn(input);
    return { answer: await this.#answer(key, name, input) };
  }

  async #answer(key: EnvelopeId, name: string, input: unknown): Promise<Answer<unknown>> {
    const state = this.#state;
    if (state.kind !== "loggedIn") {
      return refuse("not_logged_in", "Log in first; this happens by itself when the connection is made again.");
    }
    const handler = handlerOf(name);
    if (handler === undefined) {
      return refuse("unknown_request", "This server does not know the request. Update the server, or Weir.");
    }
    if (this.#inProgress.size > SERVER_REQUESTS_IN_PROGRESS_MAX) return tooFast(1000);
    const waitMs = await this.#host.rates.request(state.session.userId, handler.cost);
    if (waitMs !== null) return tooFast(waitMs);

    const context = { ...this.#host, session: state.session };
    if (handler.kind === "write") {
      const prepared = handler.prepare(input);
      return prepared.ok ? answerWrite(context, handler.isolation, { key, name, prepared: prepared.value }) : prepared;
    }
    const prepared = handler.prepare(input);
    if (!prepared.ok) return prepared;
    if (handler.kind === "once") return this.#host.recent.answer(context, { key, name, prepared: prepared.value });
    return prepared.value.run(context);
  }

  async #logIn(raw: unknown): Promise<Reply> {
    const state = this.#state;
    if (state.kind !== "challenged") {
      // Another login than this one may be under way; it goes on.
      return {
        answer: refuse("login_refused", "This connection has had its login. Connect again to log in anew."),
      };
    }
    const login = parseInput(requests.login.input, raw);
    if (!login.ok) return { answer: login };
    this.#state = { kind: "loggingIn" };
    const answer = await this.#checkAndEnter(login.value, state.challenge);
    return { answer, afterwards: () => (answer.ok ? this.#openMailbox() : this.#loginEnded()) };
  }

  async #checkAndEnter(login: RequestValue<"login">, challenge: Challenge): Promise<Answer<RequestOutput<"login">>> {
    const { rates, store, env } = this.#host;
    const waitMs = await rates.login(this.#address);
    if (waitMs !== null) return tooFast(waitMs);
    const checked = checkLogin(login, challenge);
    if (!checked.ok) return checked;
    const entered = await enterAccount(store, login, env.clock.now());
    if (!entered.ok) return entered;
    // The socket may have gone during the awaits; then there is nobody to log in.
    if (!this.#stillLoggingIn()) return refuse("login_refused", "The connection ended. Connect again.");
    this.#enter(new Session(this.#socket, this.#queue, login, this.#address));
    return entered;
  }

  #stillLoggingIn(): boolean {
    return this.#state.kind === "loggingIn" && this.#socket.connected;
  }

  #enter(session: Session): void {
    const { online, cluster, mailboxes } = this.#host;
    this.#state = { kind: "loggedIn", session };
    this.#onLogin();
    const replaced = online.add(session);
    if (replaced !== undefined) replace(this.#host, replaced);
    // What another node stored before it knew of this session has woken nobody.
    void cluster.entered(session)?.then(() => mailboxes.wakeHere(session.userId));
  }

  #openMailbox(): void {
    if (this.#state.kind === "loggedIn" && this.#state.session.open) this.#host.mailboxes.open(this.#state.session);
  }
}

/** Everything that a session has at this server. */
const leave = ({ cluster, online, mailboxes, presence, relays }: Services, session: Session): void => {
  mailboxes.close(session);
  relays.ended(session);
  online.remove(session);
  cluster.left(session);
  presence.close(session);
  relays.recheck(session.userId);
};

/** Ends a session whose device has logged in anew, here or at another node. */
export const replace = (services: Services, session: Session): void => {
  leave(services, session);
  session.close();
};

/** For the metrics: one of a few names, whatever was sent. */
const nameOf = (body: unknown): string => {
  const name = typeof body === "object" && body !== null && "name" in body ? body.name : undefined;
  const isKnown = typeof name === "string" && (name === "login" || handlerOf(name) !== undefined);
  return isKnown ? name : "unknown";
};

/** `afterwards` runs once the answer is on its way: pushes must not overtake it. */
interface Reply {
  readonly answer: Answer<unknown>;
  readonly afterwards?: () => void;
}

const tooFast = (retryAfterMs: number): { ok: false; error: ServerError } => ({
  ok: false,
  error: { type: "rate_limited", message: "Too many requests at once. Wait a moment, then try again.", retryAfterMs },
});
