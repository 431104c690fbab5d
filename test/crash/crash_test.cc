// Power cuts on the simulated disk: a random history, images of what a cut at random file
// operations could leave, and for each image: does it open, and is it a state the promises allow?
//
// With sync on write the recovered state must be the one after the last acknowledged operation, or
// the one after the operation in progress. Otherwise it must be a prefix of the history. It must
// then take writes and survive another restart.
//
// AIONBD_CRASH_IMAGES sets the number of images, AIONBD_CRASH_SEED the first seed.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "io/sim_file_system.h"
#include "test/crash/recovered.h"
#include "test/long_runs.h"

namespace aionbd {
namespace {

constexpr uint64_t kOperationsPerSeed = 60;
/// Of all mutations of the disk, the share that is followed by images of each kind.
constexpr double kImageChance = 0.25;

class CrashHistory {
 public:
  explicit CrashHistory(uint64_t seed) : seed_(seed), rng_(seed), image_rng_(seed ^ 0xC4A5) {}

  /// Runs the history; every image is checked as it is made. Returns the first violation, or "".
  std::string run() {
    options_ = small_options(rng_, "store");
    states_.push_back({});
    files_.set_hook([this](const FileCall& call) { return on_call(call); });
    auto database = open_database(options_, {&files_, &clock_});
    if (!database) return "open: " + database.error().to_string();
    for (uint64_t i = 0; i < kOperationsPerSeed && violation_.empty(); ++i) {
      const Operation operation = Operation::random(rng_, states_.back());
      states_.push_back(operation.apply(states_.back()));
      const Status done = operation.apply(**database, states_[states_.size() - 2]);
      if (!done.ok()) return operation.describe() + ": " + done.to_string();
      acknowledged_ = states_.size() - 1;
    }
    files_.set_hook({});
    return violation_;
  }

  uint64_t images() const { return images_; }

 private:
  std::optional<FileFault> on_call(const FileCall& call) {
    if (!is_mutation(call.op) || !violation_.empty() || !image_rng_.chance(kImageChance)) return {};
    const auto kind = static_cast<CrashKind>(image_rng_.below(kCrashKindsCount));
    const uint64_t image_seed = image_rng_.next();
    ++images_;
    const std::string found = check_image(*files_.crash_image(kind, image_seed));
    if (!found.empty()) {
      violation_ = "seed " + std::to_string(seed_) + ", cut before mutation " +
                   std::to_string(call.mutation) + " (" + std::string(file_op_name(call.op)) + " " +
                   call.path + "), image kind " + std::to_string(static_cast<int>(kind)) + ": " +
                   found;
    }
    return {};
  }

  std::string check_image(SimFileSystem& image) const {
    const size_t oldest = options_.durability.sync_on_write ? acknowledged_ : 0;
    return check_recovered(image, {options_, &clock_, std::span(states_).subspan(oldest)},
                           seed_ + images_);
  }

  const uint64_t seed_;
  Rng rng_;
  Rng image_rng_;
  SimFileSystem files_;
  ManualClock clock_;  // stands still: what runs when depends on the seed alone
  DatabaseOptions options_;
  std::vector<ModelState> states_;  // after each operation, the one in progress included
  size_t acknowledged_ = 0;
  uint64_t images_ = 0;
  std::string violation_;
};

TEST(CrashTest, EveryImageOfAPowerCutIsAStateThePromisesAllow) {
  const uint64_t wanted =
      number_from_environment("AIONBD_CRASH_IMAGES", kSlowness == 1 ? 100000 : 2500);
  uint64_t seed = number_from_environment("AIONBD_CRASH_SEED", 1);
  uint64_t images = 0;
  while (images < wanted) {
    CrashHistory history(seed++);
    ASSERT_EQ(history.run(), "");
    images += history.images();
  }
  print_counted(images, "crash images");
}

}  // namespace
}  // namespace aionbd
