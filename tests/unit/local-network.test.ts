import { describe, expect, it } from "vitest";
import { Emitter } from "#shared/base/emitter.ts";
import type { UserId } from "#shared/base/ids.ts";
import { LAN_RECORD_TTL_MS } from "#shared/base/limits.ts";
import type { ContractEvents } from "#shared/ipc/contract.ts";
import type { NetworkPolicy, SettingsView } from "#shared/ipc/views.ts";
import { systemRandom } from "../../src-main/env.ts";
import { type DnsRecord, epochAt, lanRecords, newInstance, tagStrings } from "../../src-main/links/lan-record.ts";
import type { LanSocketEvents } from "../../src-main/links/lan-socket.ts";
import { followLocalNetwork } from "../../src-main/local-network.ts";
import { fakeSettings } from "../support/fake-app.ts";
import { quietLog } from "../support/files.ts";
import { ManualClock } from "../support/links-fake-rtc.ts";
import { userIdOf } from "../support/links-ids.ts";

const [me, bob] = [userIdOf(1), userIdOf(2)];
const secret = new Uint8Array(32).fill(9);

const world = (lanDiscovery: boolean) => {
  const clock = new ManualClock();
  const fail = (error: unknown): void => {
    throw error;
  };
  const settingsChanged = new Emitter<SettingsView>(fail);
  const contactChanged = new Emitter<ContractEvents["contact.changed"]>(fail);
  let settings: SettingsView = { ...fakeSettings, lanDiscovery };
  const state = {
    policy: "direct" as NetworkPolicy,
    hinted: [] as UserId[],
    open: [] as LanSocketEvents[],
    sent: [] as DnsRecord[],
  };
  const local = followLocalNetwork({
    env: { clock, random: systemRandom, log: quietLog },
    self: me,
    settings: { get: () => settings, onChanged: settingsChanged.event },
    contacts: {
      userIds: () => [bob],
      isAccepted: () => true,
      isKeyChanged: () => false,
      onChanged: contactChanged.event,
    },
    contactNetwork: { get: () => ({ policy: state.policy, acceptedByMe: false }) },
    sessions: { pairwiseSecret: () => secret },
    links: { presenceHint: (peer) => void state.hinted.push(peer) },
    interfaces: () => ["10.0.0.5"],
    openSocket: (_address, events) => {
      state.open.push(events);
      return {
        query: () => undefined,
        respond: (records) => void state.sent.push(...records),
        dispose: () => void state.open.splice(state.open.indexOf(events), 1),
      };
    },
  });
  return {
    clock,
    local,
    state,
    set(wanted: boolean): void {
      settings = { ...settings, lanDiscovery: wanted };
      settingsChanged.emit(settings);
    },
    bobIsHeard(): void {
      const instance = newInstance(systemRandom);
      const strings = tagStrings([{ peer: me, secret }], bob, instance, epochAt(clock.now()), systemRandom);
      for (const events of state.open)
        events.onAnswers("10.0.0.7", lanRecords(instance, 0, strings, LAN_RECORD_TTL_MS));
    },
  };
};

describe("discovery on the local network", () => {
  it("is silent and deaf until it is wanted, and again afterwards", async () => {
    const { clock, local, state, set, bobIsHeard } = world(false);
    await clock.advance(10_000);
    expect(state.open).toEqual([]);
    set(true);
    bobIsHeard();
    expect(state.hinted).toEqual([bob]);
    await clock.advance(2000);
    expect(state.sent.length).toBeGreaterThan(0);
    set(false);
    expect(state.open).toEqual([]);
    expect(state.sent.at(-1)?.ttl).toBe(0);
    local.dispose();
    expect(clock.timers).toBe(0);
  });

  it("neither looks for a contact that may see only the relay, nor can be found by it", async () => {
    const { clock, local, state, bobIsHeard } = world(true);
    await clock.advance(2000);
    const names = (): Set<string> =>
      new Set(state.sent.flatMap((record) => (record.type === "TXT" ? [record.name] : [])));
    expect(names().size).toBe(1);
    for (const policy of ["relay", "afterAccept"] as const) {
      state.policy = policy;
      local.policyChanged(bob);
      bobIsHeard();
    }
    expect(state.hinted).toEqual([]);
    await clock.advance(2000);
    // The name whose tags bob knows was given up at once.
    expect(names().size).toBe(2);
    state.policy = "lan";
    local.policyChanged(bob);
    bobIsHeard();
    expect(state.hinted).toEqual([bob]);
    local.dispose();
  });
});
