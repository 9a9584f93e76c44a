import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { counted } from "../support/counts.ts";
import { type Engines, startEngines, whyNoEngines } from "../support/engines.ts";
import { judgeMailbox, type MailboxEvent } from "../support/mailbox-history.ts";
import { befriend, numbered, numbersOf, openRelayBetween } from "../support/relay-ends.ts";
import {
  createIdentity,
  eventually,
  freshEnvelopeId,
  RawClient,
  sealed,
  type TestIdentity,
} from "../support/rendezvous.ts";
import { type ServerProcess, startServerChild } from "../support/server-process.ts";

/** Two nodes as processes of their own, with a PostgreSQL and a Redis that can be stopped. */
const skipped = whyNoEngines();

describe.skipIf(skipped !== null)("two nodes of one server", () => {
  let engines: Engines;
  let database: string;
  const nodes: ServerProcess[] = [];
  const clients: RawClient[] = [];

  const startNode = (port = "0"): Promise<ServerProcess> =>
    startServerChild("--database", database, "--redis", engines.redisUrl, "--port", port);
  beforeAll(async () => {
    engines = await startEngines();
    database = await engines.createDatabase();
    nodes.push(...(await Promise.all([startNode(), startNode()])));
  });
  afterEach(() => {
    for (const client of clients.splice(0)) client.close();
  });
  afterAll(async () => {
    await Promise.all(nodes.map((node) => node.end("SIGKILL")));
    await engines.stop();
  });

  const urlOf = (index: number): string => defined(nodes[index], "a node").url;
  const login = async (node: number, identity = createIdentity()): Promise<RawClient> => {
    const client = await RawClient.loggedIn(urlOf(node), identity);
    clients.push(client);
    return client;
  };
  /** Kills it and starts it again on its port. */
  const restart = async (index: number): Promise<void> => {
    const node = defined(nodes[index], "a node");
    // Nothing but the kill may end it.
    expect(await node.end("SIGKILL"), node.log()).toBe("SIGKILL");
    for (;;) {
      // PostgreSQL may be down just now; whoever supervises a server starts it again, too.
      const started = await startNode(new URL(node.url).port).catch(() => null);
      if (started === null) continue;
      nodes[index] = started;
      return;
    }
  };
  const presence = (client: RawClient) => client.named("presence").map(({ online }) => online);
  const signal = (from: RawClient, to: RawClient) =>
    from.must("signal.send", { to: to.identity.userId, sealed: sealed() });

  it("relay frames between them, in order and both ways, until one side goes", async () => {
    const [alice, bob] = [await login(0), await login(1)];
    await befriend(alice, bob);
    const [a, b] = await openRelayBetween(alice, bob);
    const count = 60;
    await Promise.all([a.sendAll(count, (i) => numbered(i)), b.sendAll(count, (i) => numbered(i))]);
    await Promise.all([a.until(() => a.frames.length === count), b.until(() => b.frames.length === count)]);
    const all = Array.from({ length: count }, (_, i) => i);
    expect(numbersOf(a.frames)).toEqual(all);
    expect(numbersOf(b.frames)).toEqual(all);
    bob.close();
    await a.until(() => a.closed !== undefined);
    expect(a.closed).toBe("peer_gone");
  });

  it("end a relay whose reader acknowledges what it was never given", async () => {
    const [alice, bob] = [await login(0), await login(1)];
    await befriend(alice, bob);
    const [a, b] = await openRelayBetween(alice, bob);
    b.acknowledge(10_000_000);
    await Promise.all([a.until(() => a.closed !== undefined), b.until(() => b.closed !== undefined)]);
    expect([a.closed, b.closed]).toEqual(["broken_rules", "broken_rules"]);
  });

  it("give a device one connection, the last", async () => {
    const identity = createIdentity();
    const first = await login(0, identity);
    const second = await login(1, identity);
    await first.closed();
    expect(await second.outcome("keys.status", {})).toBe("ok");
  });

  it("push what was put at the other one at once, and tell the other device what was taken", async () => {
    const identity = createIdentity(1);
    const [desk, laptop] = [await login(0, identity), await login(1, { ...identity, deviceId: 2 })];
    const sender = await login(1);
    const id = freshEnvelopeId();
    await sender.must("mailbox.put", { to: identity.userId, id, sealed: sealed() });
    for (const device of [desk, laptop]) await device.until(() => device.named("envelope").length === 1);
    expect(await desk.must("mailbox.ack", { ids: [id] })).toEqual({ deleted: 1 });
  });

  it("survive a restart of Redis: mail is stored without it, and everything works again after it", async () => {
    const [alice, bob] = [await login(0), await login(1)];
    await befriend(alice, bob);
    expect(await signal(alice, bob)).toEqual({ delivered: true });
    await engines.redis.kill("SIGKILL");
    const id = freshEnvelopeId();
    expect(await alice.must("mailbox.put", { to: bob.identity.userId, id, sealed: sealed() })).toEqual({
      stored: true,
    });
    await engines.redis.start();
    await bob.until(() => bob.named("envelope").some((envelope) => envelope.id === id));
    await eventually(() => signal(alice, bob)).toEqual({ delivered: true });
    const carol = await login(0);
    await befriend(carol, bob);
    await carol.until(() => presence(carol).at(-1) === true);
  });

  it("show the people of a killed node as offline, and as online when they are back", async () => {
    const [alice, bob] = [await login(0), await login(1)];
    await befriend(alice, bob);
    const [a] = await openRelayBetween(alice, bob);
    await restart(1);
    await alice.until(() => presence(alice).at(-1) === false);
    await a.until(() => a.closed !== undefined);
    expect(a.closed).toBe("peer_gone");
    const again = await login(1, bob.identity);
    await again.must("presence.watch", { userIds: [alice.identity.userId] });
    await alice.until(() => presence(alice).at(-1) === true);
    expect(await signal(alice, again)).toEqual({ delivered: true });
  });

  // Row 40 of the reliability plan: the full run has 100,000 messages and 200 kills.
  const MESSAGES = counted(200, 100_000);
  const KILLS = counted(2, 200);
  const DATABASE_RESTARTS = counted(1, 20);
  /** Each waits for the answer before it sends the next one, so that its order means something; many keep the nodes busy. */
  const SENDERS = counted(8, 32);
  /** What is put into one mailbox waits for one row, so the puts of one recipient are one after the other. */
  const RECIPIENTS = counted(2, 8);

  it(
    `deliver ${MESSAGES} messages exactly once and in order over ${KILLS} kills and ${DATABASE_RESTARTS} restarts of PostgreSQL`,
    async () => {
      const events: MailboxEvent[] = [];
      const recipients = Array.from({ length: RECIPIENTS }, () => createIdentity());
      for (const recipient of recipients) (await login(0, recipient)).close();
      let stored = 0;

      /** Somebody who comes back, at either node, for as long as there is something to do. */
      const persist = async (
        identity: TestIdentity,
        isDone: () => boolean,
        work: (client: RawClient) => Promise<void>,
      ) => {
        for (let attempt = Math.floor(Math.random() * 2); !isDone(); attempt++) {
          let client: RawClient | undefined;
          try {
            client = await RawClient.loggedIn(urlOf(attempt % 2), identity);
            await work(client);
          } catch {
            await new Promise((resolve) => setTimeout(resolve, 50));
          } finally {
            client?.close();
          }
        }
      };

      const send = async (sender: number): Promise<void> => {
        const identity = createIdentity();
        const to = defined(recipients[sender % RECIPIENTS], "a recipient").userId;
        let number = 0;
        let id = freshEnvelopeId();
        let key = freshEnvelopeId();
        const share = MESSAGES / SENDERS;
        await persist(
          identity,
          () => number === share,
          async (client) => {
            while (number < share) {
              const outcome = await client.outcome("mailbox.put", { to, id, sealed: sealed(300) }, key);
              if (outcome !== "ok") {
                // A full mailbox, or a database that is not back yet: with a new key, as a new attempt.
                key = freshEnvelopeId();
                await new Promise((resolve) => setTimeout(resolve, 100));
                continue;
              }
              events.push({ type: "stored", id, sender: String(sender), number });
              [id, key] = [freshEnvelopeId(), freshEnvelopeId()];
              number++;
              stored++;
            }
          },
        );
      };

      // Not those acknowledged: the answer to an acknowledgement that was taken may be lost with the connection.
      let connections = 0;
      const receive = (recipient: TestIdentity) => {
        const received = new Set<string>();
        const all = MESSAGES / RECIPIENTS;
        return persist(
          recipient,
          () => received.size === all,
          async (client) => {
            const connection = ++connections;
            let taken = 0;
            const gone = client.closed().then(() => Promise.reject(new Error("the connection ended")));
            gone.catch(() => undefined);
            while (received.size < all) {
              await Promise.race([client.until(() => client.named("envelope").length > taken), gone]);
              const ids = client
                .named("envelope")
                .slice(taken, taken + 64)
                .map((envelope) => String(envelope.id));
              taken += ids.length;
              for (const id of ids) {
                received.add(id);
                events.push({ type: "pushed", id, connection });
              }
              while (!(await client.request("mailbox.ack", { ids: ids as never[] })).ok) {
                await new Promise((resolve) => setTimeout(resolve, 100));
              }
              for (const id of ids) events.push({ type: "acknowledged", id });
            }
          },
        );
      };

      /** Spread over the run by how much was stored, so that a slow machine changes nothing. */
      const disturb = async (times: number, act: (round: number) => Promise<void>): Promise<void> => {
        for (let round = 0; round < times; round++) {
          const at = (MESSAGES * (round + Math.random())) / (times + 1);
          await eventuallyStored(at);
          await act(round);
        }
      };
      const eventuallyStored = async (count: number): Promise<void> => {
        while (stored < count) await new Promise((resolve) => setTimeout(resolve, 20));
      };

      await Promise.all([
        ...recipients.map(receive),
        ...Array.from({ length: SENDERS }, (_, sender) => send(sender)),
        // A node that begins waits 5 s for the one that was killed in its place: each has its own kills, also at once.
        ...[0, 1].map((node) => disturb(KILLS / 2, () => restart(node))),
        disturb(DATABASE_RESTARTS, async (round) => {
          await engines.postgres.kill(round % 2 === 0 ? "SIGQUIT" : "SIGINT");
          await engines.postgres.start();
        }),
      ]);
      expect(stored).toBe(MESSAGES);
      expect(judgeMailbox(events)).toEqual({ lost: [], again: [], early: [] });
      // In the full run a kill every few seconds takes longer than anything that is sent.
    },
    counted(240_000, 3 * 3_600_000),
  );
});
