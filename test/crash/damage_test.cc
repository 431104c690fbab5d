// Damage: every byte of every file of a small, cleanly closed store is changed in turn, every file
// is cut at every length, and each such store must be told from a good one: it is refused with a
// name, or the collection concerned is, or nothing that a reader sees has changed. Never a crash,
// and never an answer that is not the truth.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "io/sim_file_system.h"
#include "test/model/history.h"

namespace aionbd {
namespace {

constexpr char kDir[] = "store";
constexpr uint64_t kOperations = 60;

/// A store with several collections, sealed segments with kills, and records in the log.
struct SmallStore {
  SimFileSystem files;
  ManualClock clock;
  DatabaseOptions options;
  ModelState state;

  explicit SmallStore(uint64_t seed) {
    Rng rng(seed);
    options = small_options(rng, kDir);
    options.checkpoint_interval = 16;
    auto database = open_database(options, {&files, &clock}).value();
    for (uint64_t i = 0; i < kOperations; ++i) {
      const Operation operation = Operation::random(rng, state);
      EXPECT_TRUE(operation.apply(*database, state).ok());
      state = operation.apply(state);
    }
  }
};

/// "" if what the database shows is the truth or a refusal; else what is wrong.
std::string lie(Database& database, const ModelState& state) {
  const std::vector<CollectionInfo> infos = database.list_collections();
  if (infos.size() != state.size()) return "collections are missing or invented";
  for (const auto& [name, model] : state) {
    const auto collection = database.collection(name);
    if (!collection) return name + ": " + collection.error().to_string();
    ListRequest request;
    request.limit = 1000;
    request.include_payload = true;
    request.include_values = true;
    const auto page = (*collection)->list(request);
    if (!page) {
      if (page.error().code() == Code::kCorruption) continue;
      return name + ": " + page.error().to_string();
    }
    if (page->points.size() != model->points.size()) return name + ": points differ";
    for (const Point& point : page->points) {
      const auto want = model->points.find(point.id);
      if (want == model->points.end() || point.values != want->second.values ||
          point.payload != want->second.payload) {
        return name + ": a point differs: " + point.id.to_string();
      }
    }
  }
  return "";
}

std::string check_damaged(const SmallStore& store, SimFileSystem& files) {
  const auto database = open_database(store.options, {&files, &store.clock});
  if (!database) {
    return database.error().code() == Code::kCorruption ? "" : database.error().to_string();
  }
  std::string found = lie(**database, store.state);
  if (!found.empty()) return found;
  // Neither a search over damaged rows nor a merge of them may crash or lie.
  for (const CollectionInfo& info : (*database)->list_collections()) {
    const auto collection = (*database)->collection(info.name).value();
    const std::vector<float> query(info.options.dimension, 1.0F);
    SearchRequest request;
    request.query = query;
    (void)collection->search(request);
    (void)collection->optimize();
  }
  return lie(**database, store.state);
}

class DamageTest : public testing::TestWithParam<uint64_t> {};

TEST_P(DamageTest, EveryChangedByteIsNoticedOrHarmless) {
  SmallStore store(GetParam());
  Rng rng(GetParam());
  const std::string dir = std::string(kDir) + "/";
  uint64_t changed = 0;
  for (const std::string& name : store.files.list(kDir).value()) {
    const std::string content = store.files.read(dir + name, 1 << 20).value();
    for (size_t i = 0; i < content.size(); ++i) {
      std::string damaged = content;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << rng.below(8)));
      const auto image = store.files.crash_image(CrashKind::kKeepAll, 1);
      image->overwrite(dir + name, damaged);
      ASSERT_EQ(check_damaged(store, *image), "") << name << ", byte " << i;
      ++changed;
    }
  }
  EXPECT_GT(changed, 4000u);
}

TEST_P(DamageTest, EveryCutIsNoticedOrHarmless) {
  SmallStore store(GetParam());
  const std::string dir = std::string(kDir) + "/";
  for (const std::string& name : store.files.list(kDir).value()) {
    const std::string content = store.files.read(dir + name, 1 << 20).value();
    for (size_t size = 0; size < content.size(); ++size) {
      const auto image = store.files.crash_image(CrashKind::kKeepAll, 1);
      image->overwrite(dir + name, content.substr(0, size));
      // The end of the last log file may be cut off without a trace: that is what a crash leaves.
      if (name.starts_with("wal-")) {
        const auto database = open_database(store.options, {image.get(), &store.clock});
        ASSERT_TRUE(database || database.error().code() == Code::kCorruption)
            << name << ", cut at " << size << ": " << database.error().to_string();
        continue;
      }
      ASSERT_EQ(check_damaged(store, *image), "") << name << ", cut at " << size;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, DamageTest, testing::Values(3, 14));

}  // namespace
}  // namespace aionbd
