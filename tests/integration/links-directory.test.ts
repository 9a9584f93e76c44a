import { afterEach, expect, test } from "vitest";
import type { UserId } from "#shared/base/ids.ts";
import { ok } from "#shared/base/result.ts";
import { createCandidateDirectory } from "../../src-main/links/candidate-directory.ts";
import type { LinksDeps } from "../../src-main/links/connection-manager.ts";
import type { Links } from "../../src-main/links/links.ts";
import { createSignaling } from "../../src-main/signaling/signaling-client.ts";
import { LinksWorld, untilConnected, untilView } from "../support/links-world.ts";
import { bytes, createIdentity, generous, startServer, type TestServer, testEnv } from "../support/rendezvous.ts";

/**
 * Two contacts on a server that delivers no live signal any more: what they leave for each other in its directory is enough
 * for a link. The server and WebRTC are real; the relay of live signals is in memory, to be taken away.
 */
let server: TestServer | undefined;
const opened: { dispose(): void }[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) one.dispose();
  await server?.dispose();
  server = undefined;
});

const secret = bytes(32);
const people = async () => {
  server = await startServer(generous);
  const { url } = server;
  const world = new LinksWorld();
  const relay = { isLive: true };
  const left: Uint8Array[] = [];
  const join = (order: number): { userId: UserId; links: Links } => {
    const member = world.add(order);
    const signaling = createSignaling({ env: testEnv(), identity: createIdentity() });
    opened.push(signaling);
    signaling.enable(url);
    const { signaling: inMemory } = world.deps(member);
    const request = async (name: string, input: never) => {
      if (name === "signal.send") return relay.isLive ? inMemory.request(name, input) : ok({ delivered: false });
      if (name === "directory.put") left.push((input as { value: Uint8Array }).value);
      return signaling.request(name as "directory.get", input);
    };
    const links = world.links(member, {
      signaling: { ...inMemory, request: request as LinksDeps["signaling"]["request"] },
      directory: createCandidateDirectory({
        clock: world.clock,
        signaling: { request: request as LinksDeps["signaling"]["request"] },
        fingerprint: member.userId,
        fingerprintOf: (peer) => peer,
        pairwiseSecret: () => secret,
      }),
    });
    opened.push(links);
    links.enable();
    return { userId: member.userId, links };
  };
  // The lower one of a pair dials.
  return { dialer: join(0), answerer: join(1), left, relay };
};

test("two contacts whose link broke have another one without one live signal", async () => {
  const { dialer, answerer, left, relay } = await people();
  dialer.links.connect(answerer.userId);
  const linked = () =>
    Promise.all([untilConnected(dialer.links, answerer.userId), untilConnected(answerer.links, dialer.userId)]);
  const [first] = await linked();
  relay.isLive = false;
  await answerer.links.disable();
  await untilView(dialer.links, answerer.userId, (view) => view.state !== "connected");
  expect(left).toEqual([]);
  answerer.links.enable();
  answerer.links.connect(dialer.userId);
  const [second] = await linked();
  expect(second.generation).toBeGreaterThan(first.generation);
  expect(second.path).toBe("lan");
  // The answerer's wish, an offer, an answer.
  expect(left.length).toBeGreaterThanOrEqual(3);
});

test("whoever has left nothing is left nothing, and is offline", async () => {
  const { dialer, answerer, left, relay } = await people();
  relay.isLive = false;
  dialer.links.connect(answerer.userId);
  const view = await untilView(dialer.links, answerer.userId, ({ reason }) => reason === "peer_offline");
  expect(view.state).toBe("discovering");
  expect(left).toEqual([]);
});
