#include "test/crash/recovered.h"

#include <algorithm>

#include "engine/engine.h"
#include "engine/store_verify.h"
#include "storage/store_files.h"

namespace aionbd {
namespace {

/// Writes made after recovery, to see that the store goes on working.
constexpr int kWritesAfter = 3;

/// Names of an open, quiet store: nothing that the manifest does not need (I9).
std::string leftovers(SimFileSystem& image, const std::string& dir) {
  const auto listing = list_store(&image, dir);
  if (!listing) return "the directory cannot be listed: " + listing.error().to_string();
  const auto manifest = read_manifest(&image, dir);
  if (!manifest) return "the manifest cannot be read: " + manifest.error().to_string();
  if (!listing->temps.empty()) return "a leftover was not removed: " + listing->temps[0];
  for (const SegmentId id : listing->segments) {
    const bool live = std::any_of(manifest->segments.begin(), manifest->segments.end(),
                                  [&](const ManifestSegment& segment) { return segment.id == id; });
    if (!live) return "an orphan was not removed: " + segment_name(id);
  }
  // The file that recovery begins with, and those after it.
  for (size_t i = 1; i < listing->logs.size(); ++i) {
    if (listing->logs[i] <= manifest->replay_after + 1) {
      return "a log file that nothing needs: " + log_name(listing->logs[i - 1]);
    }
  }
  return "";
}

}  // namespace

int64_t state_held(Database& database, std::span<const ModelState> states) {
  for (size_t i = states.size(); i-- > 0;) {
    if (holds_exactly(database, states[i])) return static_cast<int64_t>(i);
  }
  return -1;
}

std::string check_recovered(SimFileSystem& image, const Allowed& allowed, uint64_t seed) {
  const EngineEnvironment environment{&image, allowed.clock};
  auto database = open_database(allowed.options, environment);
  if (!database) return "does not open: " + database.error().to_string();
  if (!(*database)->health().quarantined.empty()) return "a collection is quarantined";
  std::string wrong = leftovers(image, allowed.options.data_dir);
  if (!wrong.empty()) return wrong;
  const int64_t found = state_held(**database, allowed.states);
  if (found < 0) return "holds no state that the promises allow";
  ModelState state = allowed.states[static_cast<size_t>(found)];
  Rng rng(seed);
  for (int i = 0; i < kWritesAfter; ++i) {
    const Operation operation = Operation::random(rng, state);
    const Status done = operation.apply(**database, state);
    if (!done.ok()) return "after recovery, " + operation.describe() + ": " + done.to_string();
    state = operation.apply(state);
  }
  database->reset();
  const auto verified = verify_store_in(&image, allowed.options.data_dir);
  if (!verified) return "verify: " + verified.error().to_string();
  if (!verified->findings.empty()) return "verify: " + verified->findings[0].what;
  database = open_database(allowed.options, environment);
  if (!database) return "second restart: " + database.error().to_string();
  wrong = difference(**database, state, rng);
  return wrong.empty() ? "" : "after the second restart: " + wrong;
}

}  // namespace aionbd
