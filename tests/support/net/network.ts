import { Namespace } from "./namespace.ts";

/**
 *   port-restricted  the public port of a socket is the same for every destination, and only those answer through it that
 *                    were written to (RFC 4787: endpoint-independent mapping, address and port dependent filtering)
 *   symmetric        every destination sees another, random port, so nobody else can be told where to write to
 */
export type NatKind = "port-restricted" | "symmetric";

/** RFC 5737 (TEST-NET-3): the internet of these tests. */
export const PUBLIC_ADDRESS = "203.0.113.1";
export const TURN_PORT = 3478;
const wanAddress = (site: number): string => `203.0.113.${10 + site}`;

/** One computer: its eth0 leads to the router of its site. */
export class Host {
  readonly namespace: Namespace;
  readonly address: string;
  readonly #gateway: string;

  constructor(namespace: Namespace, address: string, gateway: string) {
    this.namespace = namespace;
    this.address = address;
    this.#gateway = gateway;
  }

  /** Takes its network interface down, as a pulled cable does; its routes go with it. */
  async down(): Promise<void> {
    await this.namespace.ip("link set eth0 down");
  }
  async up(): Promise<void> {
    await this.namespace.ip("link set eth0 up", `route add default via ${this.#gateway}`);
  }
}

/** A home or an office: any number of hosts on one local network behind a router with NAT. */
export class Site {
  readonly wanAddress: string;
  readonly #router: Namespace;
  readonly #number: number;
  readonly #own: <T extends AsyncDisposable>(part: T) => T;
  #hosts = 0;
  #nat: NatKind;
  #udpBlocked = false;
  #cut = false;
  #lossPercent = 0;

  constructor(options: {
    number: number;
    nat: NatKind;
    router: Namespace;
    own: <T extends AsyncDisposable>(part: T) => T;
  }) {
    this.#number = options.number;
    this.#nat = options.nat;
    this.#router = options.router;
    this.#own = options.own;
    this.wanAddress = wanAddress(options.number);
  }

  async host(): Promise<Host> {
    const number = ++this.#hosts;
    const namespace = this.#own(await Namespace.create());
    const [address, gateway] = [`10.${this.#number}.0.${10 + number}`, `10.${this.#number}.0.1`];
    await this.#router.ip(
      `link add port${number} type veth peer name eth0 netns ${namespace.pid}`,
      `link set port${number} master lan up`,
    );
    await namespace.ip(`address add ${address}/24 dev eth0`, "link set eth0 up", `route add default via ${gateway}`);
    return new Host(namespace, address, gateway);
  }

  /** For connections from now on; those that exist keep their ports. */
  async nat(kind: NatKind): Promise<void> {
    this.#nat = kind;
    await this.apply();
  }

  /** No UDP leaves or enters, as in some offices; TCP does. */
  async blockUdp(blocked: boolean): Promise<void> {
    this.#udpBlocked = blocked;
    await this.apply();
  }

  /** Nothing passes the router until `restore`. */
  async cut(): Promise<void> {
    this.#cut = true;
    await this.apply();
  }
  async restore(): Promise<void> {
    this.#cut = false;
    await this.apply();
  }

  /** Of the packets in either direction. Which ones is up to the kernel; see `udp-impair.ts` for losses with a seed. */
  async lose(percent: number): Promise<void> {
    this.#lossPercent = percent;
    await this.apply();
  }

  /** Everything works again, under this kind of NAT. */
  async mend(nat: NatKind): Promise<void> {
    this.#nat = nat;
    this.#udpBlocked = false;
    this.#cut = false;
    this.#lossPercent = 0;
    await this.apply();
    await this.limit(null);
  }

  /** How much it may send to the public network; null for no limit. */
  async limit(megabitsPerSecond: number | null): Promise<void> {
    await this.#router.run(["sh", "-c", "tc qdisc delete dev wan root 2>/dev/null || true"]);
    if (megabitsPerSecond !== null)
      await this.#router.run(
        `tc qdisc add dev wan root tbf rate ${megabitsPerSecond}mbit burst 64kb latency 50ms`.split(" "),
      );
  }

  /** Takes effect as a whole. What this counts begins again at zero. */
  async apply(): Promise<void> {
    const masquerade = this.#nat === "symmetric" ? "masquerade random,fully-random" : "masquerade";
    await this.#router.run(
      ["nft", "-f", "-"],
      `flush ruleset
       table ip weir {
         counter peers { }
         chain passing {
           type filter hook forward priority filter; policy accept;
           ${this.#cut ? "drop" : ""}
           ${this.#udpBlocked ? "meta l4proto udp drop" : ""}
           ${this.#lossPercent > 0 ? `numgen random mod 1000 < ${this.#lossPercent * 10} drop` : ""}
           iifname "wan" ct state != { established, related } drop
           oifname "wan" meta l4proto udp ip daddr != ${PUBLIC_ADDRESS} counter name peers
         }
         # Unasked packets must be gone before they are remembered as connections, or an answer would get another port.
         chain arriving {
           type filter hook input priority filter; policy accept;
           iifname "wan" ct state != { established, related } drop
         }
         chain leaving {
           type nat hook postrouting priority srcnat; policy accept;
           oifname "wan" ${masquerade}
         }
       }`,
    );
  }

  /** UDP packets that left this site for anywhere but the public server. */
  async packetsToPeers(): Promise<number> {
    return (await readCounter(this.#router, "peers")).packets;
  }
}

const readCounter = async (namespace: Namespace, name: string): Promise<{ packets: number; bytes: number }> => {
  const shown = await namespace.run(["nft", "list", "counter", "ip", "weir", name]);
  const [, packets, bytes] = /packets (\d+) bytes (\d+)/.exec(shown) ?? [];
  if (packets === undefined) throw new Error(`there is no counter ${name}`);
  return { packets: Number(packets), bytes: Number(bytes) };
};

/** The public network, and sites that are connected to it. */
export class Network implements AsyncDisposable {
  /** Where servers run, at {@link PUBLIC_ADDRESS}. */
  readonly internet: Namespace;
  readonly #owned: AsyncDisposableStack;
  #sites = 0;

  private constructor(internet: Namespace, owned: AsyncDisposableStack) {
    this.internet = internet;
    this.#owned = owned;
  }

  static async create(): Promise<Network> {
    await using owned = new AsyncDisposableStack();
    const internet = owned.use(await Namespace.create());
    await internet.ip(
      "link add net type bridge",
      `address add ${PUBLIC_ADDRESS}/24 dev net`,
      "link set net up",
      // As in the real one, packets to nowhere just vanish (here at a gateway that is not there); coturn gives up a session
      // when it cannot send.
      "neighbour add 203.0.113.254 lladdr 02:00:00:00:00:01 nud permanent dev net",
      "route add default via 203.0.113.254",
    );
    await internet.run(
      ["nft", "-f", "-"],
      `table ip weir {
         counter turn { }
         chain arriving {
           type filter hook input priority filter; policy accept;
           meta l4proto udp counter name turn
         }
       }`,
    );
    return new Network(internet, owned.move());
  }

  async site(nat: NatKind): Promise<Site> {
    const number = ++this.#sites;
    const router = this.#owned.use(await Namespace.create());
    await this.internet.ip(
      `link add site${number} type veth peer name wan netns ${router.pid}`,
      `link set site${number} master net up`,
    );
    await router.ip(
      "link add lan type bridge",
      `address add 10.${number}.0.1/24 dev lan`,
      "link set lan up",
      `address add ${wanAddress(number)}/24 dev wan`,
      "link set wan up",
      `route add default via ${PUBLIC_ADDRESS}`,
    );
    await router.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
    const site = new Site({ number, nat, router, own: (part) => this.#owned.use(part) });
    await site.apply();
    return site;
  }

  /** What the TURN server has been sent so far, at its own port and at those that it relays; nothing else here uses UDP. */
  async bytesToTurn(): Promise<number> {
    return (await readCounter(this.internet, "turn")).bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}
