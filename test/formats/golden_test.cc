// Stores that earlier versions wrote (test/golden, made by make_golden.cc): each opens, holds what
// it held, and takes writes; one from a later version is refused and not touched. A failure here
// means that a user's store does not open any more: then the reader is wrong, never the file.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "aionbd/store.h"
#include "cli/program.h"
#include "test/formats/golden_content.h"

namespace aionbd {
namespace {

namespace fs = std::filesystem;

constexpr int kExitDamaged = 65;

/// Each version that was ever released.
const char* const kVersions[] = {"v1", "v2"};

class GoldenTest : public testing::TestWithParam<const char*> {
 protected:
  GoldenTest() {
    std::string name = (fs::temp_directory_path() / "aionbd_golden_XXXXXX").string();
    root_ = mkdtemp(name.data());
    fs::copy(fs::path(AIONBD_SOURCE_DIR) / "test/golden" / GetParam(), root_,
             fs::copy_options::recursive);
  }
  ~GoldenTest() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  /// The files of a folder, without the lock that opening makes.
  std::map<std::string, std::string> files_of(const std::string& folder) const {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::directory_iterator(root_ + folder)) {
      if (entry.path().filename() == "LOCK") continue;
      std::ifstream in(entry.path(), std::ios::binary);
      out[entry.path().filename()] = {std::istreambuf_iterator<char>(in), {}};
    }
    return out;
  }

  std::string root_;
};

TEST_P(GoldenTest, PlainStoreOpensAndGoesOn) {
  const std::string dir = root_ + "/store";
  const auto verified = verify_store(dir);
  ASSERT_TRUE(verified.has_value()) << verified.error().to_string();
  EXPECT_TRUE(verified->findings.empty()) << verified->findings[0].what;
  ModelState state = golden_state(golden_history());
  Rng rng(1);
  for (int round = 0; round < 2; ++round) {
    auto database = Database::open(golden_options(dir));
    ASSERT_TRUE(database.has_value()) << database.error().to_string();
    ASSERT_EQ(difference(**database, state, rng), "") << "round " << round;
    for (const Operation& operation : {Operation::upsert("alpha", golden_points(5, 4, 8)),
                                       Operation::checkpoint(), Operation::optimize("alpha")}) {
      ASSERT_TRUE(operation.apply(**database, state).ok()) << operation.describe();
      state = operation.apply(state);
    }
  }
}

TEST_P(GoldenTest, BackupIsRestoredAndItsIndexesAnswer) {
  const std::string dir = root_ + "/restored";
  const auto restored = restore_store(root_ + "/backup", dir);
  ASSERT_TRUE(restored.has_value()) << restored.error().to_string();
  const auto database = Database::open(golden_options(dir));
  ASSERT_TRUE(database.has_value()) << database.error().to_string();
  // Opens the indexes that are there.
  const auto collection = (*database)->collection("indexed").value();
  ASSERT_TRUE(collection->optimize().ok());
  for (const MetricSample& sample : (*database)->metrics()) {
    if (sample.row->name == std::string_view("l2_index_build_requests")) {
      EXPECT_EQ(sample.value, 0) << "an index of an earlier version was not used";
    }
  }
  const CollectionStats stats = collection->stats().value();
  size_t indexes = 0;
  for (const SegmentStats& segment : stats.segments) indexes += segment.indexes.size();
  EXPECT_GE(indexes, 1u) << "the vector index was not opened";
  Rng rng(1);
  const ModelState state = golden_state(golden_indexed_history());
  for (int i = 0; i < 8; ++i) ASSERT_EQ(difference(**database, state, rng), "");
}

TEST_P(GoldenTest, StoreFromTheFutureIsRefusedAndNotTouched) {
  // What was the future for an earlier version is the present.
  if (GetParam() != std::string(kVersions[std::size(kVersions) - 1])) return;
  const auto before = files_of("/future");
  const auto opened = Database::open(golden_options(root_ + "/future"));
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code(), Code::kCorruption);
  EXPECT_NE(opened.error().message().find("newer version"), std::string::npos)
      << opened.error().to_string();
  EXPECT_EQ(run_program({"serve", "--bind", "127.0.0.1:0", "--data-dir", root_ + "/future"}),
            kExitDamaged);
  EXPECT_EQ(run_program({"verify", root_ + "/future"}), kExitDamaged);
  EXPECT_EQ(files_of("/future"), before);
}

INSTANTIATE_TEST_SUITE_P(Versions, GoldenTest, testing::ValuesIn(kVersions));

}  // namespace
}  // namespace aionbd
