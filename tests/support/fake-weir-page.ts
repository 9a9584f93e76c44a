import { FakeWeir } from "./fake-weir.ts";
import { emptyState, sampleState } from "./fake-weir-sample.ts";

/** Bundled and run in the page before the window's own code, where it leaves `makeFake` behind. */
export type Scenario = "firstStart" | "empty" | "sample" | "headless";

const makeFake = (scenario: Scenario): FakeWeir => {
  switch (scenario) {
    case "firstStart": {
      const state = emptyState();
      state.profile.name = "";
      return new FakeWeir(state);
    }
    case "empty":
      return new FakeWeir(emptyState());
    case "sample":
      return new FakeWeir(sampleState());
    case "headless": {
      const state = sampleState();
      state.host = { ...state.host, kind: "headless", canPick: false, canOpen: false };
      return new FakeWeir(state);
    }
  }
};

Object.assign(globalThis, { makeFake });
