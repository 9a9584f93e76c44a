import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { bindingRequest, mappedAddressIn, natFrom, probeNat } from "../../src-main/links/nat-probe.ts";
import { systemEnv } from "../../src-main/log.ts";

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.close();
});

/** An answer (RFC 8489) that says `address port`, after an attribute of another kind whose length is no multiple of four. */
const answer = (request: Uint8Array, address: string, port: number): Buffer => {
  const packet = Buffer.alloc(20 + 8 + 12);
  packet.writeUInt16BE(0x0101, 0);
  packet.writeUInt16BE(packet.length - 20, 2);
  packet.set(request.subarray(4, 20), 4);
  packet.writeUInt16BE(0x8022, 20);
  packet.writeUInt16BE(3, 22);
  packet.writeUInt16BE(0x0020, 28);
  packet.writeUInt16BE(8, 30);
  packet.writeUInt8(1, 33);
  packet.writeUInt16BE(port ^ 0x2112, 34);
  const bits = address.split(".").reduce((all, byte) => all * 256 + Number(byte), 0);
  packet.writeUInt32BE((bits ^ 0x2112a442) >>> 0, 36);
  return packet;
};

/** A STUN server that sees everybody at `address` and `port`; a port of 0 stands for the real one. */
const server = async (address: string, port: number, deaf = 0): Promise<string> => {
  const socket = createSocket("udp4");
  sockets.push(socket);
  let ignored = 0;
  socket.on("message", (request, from) => {
    ignored += 1;
    if (ignored > deaf) socket.send(answer(request, address, port === 0 ? from.port : port), from.port, from.address);
  });
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  return `127.0.0.1:${socket.address().port}`;
};

const silent = (): Promise<string> => server("203.0.113.9", 5000, Number.POSITIVE_INFINITY);

test("servers that see one port say so, also when the first packet to one is lost", async () => {
  const [one, two] = [await server("203.0.113.9", 5000), await server("203.0.113.9", 5000, 1)];
  const found = await probeNat(systemEnv(), [`stun:${one}`, `turn:17%3Aalice:secret@${two}`]);
  expect(found).toEqual({ nat: "same", asked: 2, answered: 2 });
});

test("servers that see different ports reveal a translator that takes another one for each", async () => {
  const [one, two] = [await server("203.0.113.9", 5000), await server("203.0.113.9", 5001)];
  expect(await probeNat(systemEnv(), [`stun:${one}`, `stun:${two}`])).toMatchObject({ nat: "varies" });
});

test("one answer says that there is a translator, not which; and one server under two names is one", async () => {
  const [one, two] = [await server("203.0.113.9", 5000), await silent()];
  expect(await probeNat(systemEnv(), [`stun:${one}`, `stun:${one}`, `stun:${two}`])).toEqual({
    ...{ nat: "unknown", asked: 2, answered: 1 },
  });
});

test("a server within our own network says nothing about what is in front of that network", async () => {
  const [inside, outside] = [await server("127.0.0.1", 0), await server("203.0.113.9", 5000)];
  const urls = [`stun:${inside}`, `stun:${outside}`];
  expect(await probeNat(systemEnv(), urls)).toEqual({ nat: "unknown", asked: 2, answered: 2 });
});

test("nobody answers, nobody is there to be asked, or the socket cannot be had: no verdict", async () => {
  const env = systemEnv();
  expect(await probeNat(env, [`stun:${await silent()}`])).toEqual({ nat: "unknown", asked: 1, answered: 0 });
  expect(await probeNat(env, [])).toEqual({ nat: "unknown", asked: 0, answered: 0 });
  expect(await probeNat(env, ["stun:no-such-host.invalid:3478"])).toEqual({ nat: "unknown", asked: 1, answered: 0 });
  expect(await probeNat(env, [`stun:${await silent()}`], "192.0.2.1")).toMatchObject({ answered: 0 });
});

test("what is no answer to this question is not read as one", () => {
  const transaction = new Uint8Array(12).fill(7);
  const good = answer(bindingRequest(transaction), "203.0.113.9", 5000);
  expect(mappedAddressIn(good, transaction)).toBe("203.0.113.9 5000");
  expect(mappedAddressIn(good, new Uint8Array(12))).toBeNull();
  for (let length = 0; length < good.length; length += 1)
    expect(mappedAddressIn(good.subarray(0, length), transaction)).toBeNull();
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(255), fc.uint8Array({ maxLength: 64 }), (at, byte, garbage) => {
      const spoilt = new Uint8Array(good);
      spoilt[at] = byte;
      mappedAddressIn(spoilt, transaction);
      expect(mappedAddressIn(garbage, transaction)).toBeNull();
    }),
  );
});

test("public addresses of our own mean that there is no translator, if every server sees one", () => {
  const own = new Set(["198.51.100.7"]);
  expect(natFrom(["198.51.100.7 4000", "198.51.100.7 4000"], own)).toBe("none");
  expect(natFrom(["198.51.100.7 4000", "203.0.113.9 4000"], own)).toBe("varies");
});
