// repair_store: what is lost is what was damaged, and no more.
#include <algorithm>

#include "aionbd/store.h"
#include "engine/test_store.h"
#include "storage/store_files.h"

namespace aionbd {
namespace {

class StoreRepairTest : public StoreTest {
 protected:
  StoreRepairTest() : out_(root_ + "/salvaged") {}

  RepairReport repair() {
    std::filesystem::remove_all(out_);
    auto report = repair_store(dir_, out_);
    EXPECT_TRUE(report.has_value()) << report.status().to_string();
    if (!report.has_value()) return {};
    const auto verified = verify_store(out_);
    EXPECT_TRUE(verified.has_value() && verified->clean());
    return *report;
  }
  /// The segment with nearly all rows of "docs": the first file the store made and kept.
  std::string main_segment() const { return names(".seg").front(); }

  static const StoreContent& truth() {
    static const StoreContent content = [] {
      const std::string copy = pristine() + "/copy";
      std::filesystem::copy(pristine() + "/store", copy);
      return content_of(copy);
    }();
    return content;
  }
  /// Every point of `content` is one of the truth, but for those `may_differ` says.
  static void expect_subset(const StoreContent& content) {
    for (const auto& [name, points] : content) {
      ASSERT_TRUE(truth().contains(name)) << name;
      for (const auto& [id, point] : points) {
        const auto found = truth().at(name).find(id);
        ASSERT_NE(found, truth().at(name).end()) << name << " " << id;
        EXPECT_EQ(found->second, point) << name << " " << id;
      }
    }
  }

  std::string out_;
};

TEST_F(StoreRepairTest, WholeStoreLosesNothing) {
  const auto before = bytes_of_dir(dir_);
  const RepairReport report = repair();
  EXPECT_TRUE(report.complete());
  EXPECT_EQ(report.collections.size(), 3u);
  EXPECT_EQ(report.rows_lost, 0u);
  EXPECT_EQ(report.log_records_kept, 22u);
  EXPECT_EQ(content_of(out_), truth());
  EXPECT_EQ(bytes_of_dir(dir_), before);
}

TEST_F(StoreRepairTest, RowsOfWholeBlocksSurvive) {
  const std::string name = main_segment();
  // The rows file of 4,600 rows x (8 + 32 + 4 + payload) bytes has several blocks.
  const uint64_t size = std::filesystem::file_size(file(name));
  ASSERT_GT(size, 6u * kBlockBytes);
  for (uint64_t block = 0; block < size / kBlockBytes; ++block) {
    SCOPED_TRACE(block);
    flip(file(name), block * kBlockBytes + 1234);
    const RepairReport report = repair();
    const StoreContent content = content_of(out_);
    flip(file(name), block * kBlockBytes + 1234);
    EXPECT_FALSE(report.complete());
    expect_subset(content);
    EXPECT_EQ(content.at("words"), truth().at("words"));
    EXPECT_EQ(content.at("late"), truth().at("late"));
    const uint64_t kept = content.at("docs").size();
    const uint64_t all = truth().at("docs").size();
    EXPECT_EQ(kept + report.rows_lost, all);
    EXPECT_GT(report.rows_lost, 0u);
    EXPECT_LT(report.rows_lost, all);
    if (kept + report.rows_lost != all) break;
  }
}

TEST_F(StoreRepairTest, HeaderTrailerAndTablesCostAtMostOneBlock) {
  const std::string name = main_segment();
  const uint64_t size = std::filesystem::file_size(file(name));
  struct Case {
    uint64_t offset;
    bool complete_rows;
  };
  // In the trailer; in the last block's checksum; in the table of sections is worse.
  for (const Case& one :
       {Case{size - 5, true}, Case{size - 40, true}, Case{size - 64 - 4, false}}) {
    SCOPED_TRACE(one.offset);
    flip(file(name), one.offset);
    const RepairReport report = repair();
    flip(file(name), one.offset);
    EXPECT_FALSE(report.complete());
    const StoreContent content = content_of(out_);
    expect_subset(content);
    EXPECT_EQ(content.at("docs").size() + report.rows_lost, truth().at("docs").size());
    EXPECT_EQ(report.rows_lost == 0, one.complete_rows);
  }
}

TEST_F(StoreRepairTest, LostSegmentLeavesTheRest) {
  const std::string name = main_segment();
  for (const bool missing : {false, true}) {
    if (missing) {
      std::filesystem::remove(file(name));
    } else {
      write(file(name), read(file(name)).substr(0, 100000));
    }
    const RepairReport report = repair();
    EXPECT_EQ(report.segments_lost, 1u);
    const StoreContent content = content_of(out_);
    expect_subset(content);
    EXPECT_EQ(content.at("docs").size(), 50u);  // the second segment of docs
    EXPECT_EQ(content.at("words"), truth().at("words"));
  }
}

TEST_F(StoreRepairTest, RecordsBehindADamagedPlaceSurvive) {
  const std::string name = names(".log").back();
  const uint64_t size = std::filesystem::file_size(file(name));
  size_t most = 0;
  for (const uint64_t offset : {uint64_t{10}, size / 3, size / 2, size - 200}) {
    SCOPED_TRACE(offset);
    flip(file(name), offset);
    const RepairReport report = repair();
    flip(file(name), offset);
    EXPECT_FALSE(report.complete());
    const StoreContent content = content_of(out_);
    EXPECT_EQ(content.at("docs"), truth().at("docs"));
    const size_t late = content.contains("late") ? content.at("late").size() : 0;
    EXPECT_GE(late, truth().at("late").size() - 1) << "one frame is damaged, one record is lost";
    most = std::max(most, late);
  }
  EXPECT_EQ(most, truth().at("late").size()) << "a damaged header loses no record";
}

TEST_F(StoreRepairTest, DamagedPaddingIsNoLossAndNoLoop) {
  const std::string name = names(".log").back();
  const std::string whole = read(file(name));
  // Behind the first frame's payload: no checksum covers it.
  const auto first = read_as<FrameHeader>(as_bytes_of(whole).subspan(sizeof(LogHeader)));
  ASSERT_NE(first.payload_bytes % kFrameAlignment, 0U);
  flip(file(name), sizeof(LogHeader) + sizeof(FrameHeader) + first.payload_bytes);
  const RepairReport report = repair();
  EXPECT_FALSE(report.complete());
  EXPECT_EQ(content_of(out_), truth());
}

TEST_F(StoreRepairTest, TornTailIsNoLoss) {
  const std::string name = names(".log").back();
  write(file(name), read(file(name)) + std::string(100, 'j'));
  const RepairReport report = repair();
  EXPECT_TRUE(report.complete());
  EXPECT_EQ(report.notes_count, 1u);
  EXPECT_EQ(content_of(out_), truth());
}

TEST_F(StoreRepairTest, WithoutAManifestSegmentsAndRecordsAreSaved) {
  flip(file("MANIFEST"), 100);
  const RepairReport report = repair();
  EXPECT_FALSE(report.complete());
  const StoreContent content = content_of(out_);
  size_t rows = 0;
  for (const auto& [name, points] : content) {
    if (name.starts_with("salvaged-0")) rows += points.size();
  }
  EXPECT_EQ(rows, kTestRows - 2 + 300);
  EXPECT_EQ(content.at("late"), truth().at("late"));
}

TEST_F(StoreRepairTest, RefusesWhatItMustNotTouch) {
  EXPECT_EQ(repair_store(root_ + "/nothing", out_).status().code(), Code::kNotFound);
  std::filesystem::create_directories(out_);
  write(out_ + "/mine", "x");
  EXPECT_EQ(repair_store(dir_, out_).status().code(), Code::kAlreadyExists);
  EXPECT_EQ(read(out_ + "/mine"), "x");
  const auto database = Database::open(options_for(dir_)).value();
  EXPECT_EQ(repair_store(dir_, root_ + "/free").status().code(), Code::kInUse);
}

}  // namespace
}  // namespace aionbd
