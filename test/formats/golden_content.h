// What the frozen stores of test/golden hold: the one description that the tool which makes them
// and the test which opens them share. Never changed for a format version that was frozen.
#pragma once

#include <vector>

#include "aionbd/aionbd.h"
#include "engine/pinning.h"
#include "test/model/history.h"

namespace aionbd {

/// Rows of the collection that has indexes; a literal, because the limit in the engine may change.
inline constexpr uint64_t kGoldenIndexedRows = 4096;

inline Payload golden_payload(uint64_t i) {
  return {{"group", static_cast<int64_t>(i % 4)},
          {"null", nullptr},
          {"flag", i % 2 == 0},
          {"large", UINT64_MAX - i},
          {"real", static_cast<double>(i) / 8},
          {"text", "t\xc3\xa4xt " + std::to_string(i)},
          {"list", Value::Array{int64_t{1}, "two", Value::Array{true}}},
          {"object", Value::Object{{"inner", static_cast<int64_t>(i)}}}};
}

inline std::vector<Point> golden_points(uint64_t first, uint64_t count, float shift) {
  std::vector<Point> out;
  for (uint64_t i = first; i < first + count; ++i) {
    const auto x = static_cast<float>(i % 16);
    out.push_back({i, {x + shift, x / 4 - shift, -x}, golden_payload(i)});
  }
  return out;
}

inline std::vector<PointId> golden_ids(uint64_t first, uint64_t count) {
  std::vector<PointId> out;
  for (uint64_t i = first; i < first + count; ++i) out.emplace_back(i);
  return out;
}

/// The history of the plain store: every record kind, sealed segments with kills, a merged one, a
/// dropped and a recreated collection, and records in the log that no segment holds.
inline std::vector<Operation> golden_history() {
  std::vector<Operation> out;
  out.push_back(Operation::create("alpha", {.dimension = 3, .metric = Metric::kL2}));
  out.push_back(Operation::create(
      "beta", {.dimension = 2, .strict_finite = false, .id_type = IdType::kString, .metric = {}}));
  out.push_back(Operation::create("gamma", {.dimension = 1, .metric = Metric::kCosine}));
  out.push_back(Operation::upsert("alpha", golden_points(0, 20, 1)));
  out.push_back(Operation::upsert("beta", {{"one", {1, 2}, {}},
                                           {"\xc3\xa9l\xc3\xa9ment", {-0.0F, 1e-40F}, {}},
                                           {std::string(512, 'x'), {3, 4}, golden_payload(9)}}));
  out.push_back(Operation::upsert("gamma", {{uint64_t{7}, {7}, {}}}));
  out.push_back(Operation::checkpoint());
  out.push_back(Operation::upsert("alpha", golden_points(10, 20, 2)));
  out.push_back(Operation::remove("alpha", golden_ids(3, 2)));
  out.push_back(Operation::checkpoint());
  out.push_back(Operation::optimize("beta"));
  out.push_back(Operation::upsert("alpha", golden_points(UINT64_MAX - 2, 2, 3)));
  out.push_back(Operation::drop("gamma"));
  out.push_back(Operation::checkpoint());
  // From here on in the log alone.
  out.push_back(Operation::create("gamma", {.dimension = 4, .metric = {}}));
  out.push_back(Operation::upsert("gamma", {{uint64_t{7}, {1, 2, 3, 4}, {}}}));
  out.push_back(Operation::set_group("alpha", golden_ids(0, 3), 9));
  out.push_back(Operation::remove("alpha", golden_ids(12, 1)));
  return out;
}

/// The history of the store that is frozen as a backup: one collection with a vector index and a
/// field index.
inline std::vector<Operation> golden_indexed_history() {
  std::vector<Point> points;
  for (uint64_t i = 0; i < kGoldenIndexedRows; ++i) {
    const auto x = static_cast<float>(i * 7919 % 1009);
    points.push_back(
        {i, {x, static_cast<float>(i % 61)}, {{"group", static_cast<int64_t>(i % 4)}}});
  }
  std::vector<Operation> out;
  out.push_back(Operation::create("indexed", {.dimension = 2, .metric = Metric::kL2}));
  out.push_back(Operation::upsert("indexed", std::move(points)));
  return out;
}

/// What a history leads to.
inline ModelState golden_state(const std::vector<Operation>& history) {
  ModelState state;
  for (const Operation& operation : history) state = operation.apply(state);
  return state;
}

inline DatabaseOptions golden_options(const std::string& dir) {
  DatabaseOptions options;
  options.data_dir = dir;
  options.search_threads = 1;
  options.checkpoint_interval = 1000000;
  options.index_warmup_on_boot = false;
  options.recall_audit = false;
  options.index_build_cooldown = std::chrono::hours(1);
  return options;
}

}  // namespace aionbd
