// The simulated disk: each thing a power cut can leave must be reachable, and nothing synced lost.
#include "io/sim_file_system.h"

#include <gtest/gtest.h>

#include <set>
#include <thread>

namespace aionbd {
namespace {

std::string content(FileSystem& files, const std::string& path) {
  auto text = files.read(path, 1 << 20);
  return text.has_value() ? *text : "(missing)";
}

class SimTest : public ::testing::Test {
 protected:
  SimTest() { EXPECT_TRUE(files_.make_dirs("d").ok()); }

  std::unique_ptr<WritableFile> put(const std::string& path, std::string_view text) {
    auto file = files_.create(path).value();
    EXPECT_TRUE(file->append(as_bytes_of(text)).ok());
    return file;
  }
  /// Everything `path` can hold after a power cut now.
  std::set<std::string> outcomes(const std::string& path, uint32_t survive_percent = 50) {
    std::set<std::string> out;
    for (uint64_t seed = 0; seed < 400; ++seed) {
      out.insert(content(*files_.crash_clone(seed, survive_percent), path));
    }
    return out;
  }

  SimFileSystem files_;
};

TEST_F(SimTest, SyncedFileAndNameSurviveEverything) {
  auto file = put("d/f", "durable");
  ASSERT_TRUE(file->sync().ok());
  ASSERT_TRUE(files_.sync_dir("d").ok());
  EXPECT_EQ(outcomes("d/f"), std::set<std::string>{"durable"});
  for (size_t kind = 0; kind < kCrashKindsCount; ++kind) {
    EXPECT_EQ(content(*files_.crash_image(static_cast<CrashKind>(kind), 1), "d/f"), "durable");
  }
}

TEST_F(SimTest, NameWithoutDirectorySyncMayBeLost) {
  auto file = put("d/f", "x");
  ASSERT_TRUE(file->sync().ok());
  EXPECT_EQ(outcomes("d/f"), (std::set<std::string>{"(missing)", "x"}));
}

TEST_F(SimTest, UnsyncedDataMayBeLostZeroOrNoise) {
  put("d/f", "x");
  ASSERT_TRUE(files_.sync_dir("d").ok());
  const auto seen = outcomes("d/f");
  EXPECT_TRUE(seen.contains(""));
  EXPECT_TRUE(seen.contains("x"));
  EXPECT_TRUE(seen.contains(std::string(1, '\0')));
  EXPECT_GT(seen.size(), 3u) << "noise";
}

TEST_F(SimTest, BlocksOfRemovedFilesMayReturnInNewOnes) {
  ASSERT_TRUE(put("d/old", std::string(600, 'o'))->sync().ok());
  ASSERT_TRUE(files_.remove("d/old").ok());
  ASSERT_TRUE(files_.sync_dir("d").ok());
  put("d/f", std::string(700, 'n'));
  ASSERT_TRUE(files_.sync_dir("d").ok());
  const auto image = files_.crash_image(CrashKind::kStaleExtension, 1);
  EXPECT_EQ(image->read("d/f", 1 << 20).value(), std::string(600, 'o') + std::string(100, '\0'));
}

TEST_F(SimTest, SectorsSurviveOneByOne) {
  auto file = files_.create("d/f").value();
  ASSERT_TRUE(files_.sync_dir("d").ok());
  ASSERT_TRUE(file->append(as_bytes_of(std::string(1000, 'a'))).ok());
  ASSERT_TRUE(file->sync().ok());
  ASSERT_TRUE(file->append(as_bytes_of(std::string(536, 'b') + std::string(512, 'c'))).ok());
  bool hole = false;
  for (const auto& text : outcomes("d/f")) {
    EXPECT_EQ(text.substr(0, 1000), std::string(1000, 'a')) << "synced neighbours are safe";
    hole |= text.size() == 2048 && text[1100] != 'b' && text.substr(1536) == std::string(512, 'c');
  }
  EXPECT_TRUE(hole) << "later sectors without earlier ones";
}

TEST_F(SimTest, TruncationMayBeUndoneAndOldBytesMayReturn) {
  auto file = put("d/f", "0123456789");
  ASSERT_TRUE(file->sync().ok());
  ASSERT_TRUE(files_.sync_dir("d").ok());
  ASSERT_TRUE(file->truncate(4).ok());
  EXPECT_EQ(outcomes("d/f"), (std::set<std::string>{"0123", "0123456789"}));
  ASSERT_TRUE(file->sync().ok());
  EXPECT_EQ(outcomes("d/f"), std::set<std::string>{"0123"});
  ASSERT_TRUE(file->append(as_bytes_of("ab")).ok());
  const auto seen = outcomes("d/f");
  EXPECT_TRUE(seen.contains("0123ab"));
  EXPECT_TRUE(seen.contains("012345")) << "grown over old bytes";
}

TEST_F(SimTest, RenameMayBeDurableBeforeTheData) {
  ASSERT_TRUE(put("d/root", "old")->sync().ok());
  ASSERT_TRUE(files_.sync_dir("d").ok());
  put("d/tmp", "new");
  ASSERT_TRUE(files_.rename("d/tmp", "d/root").ok());
  const auto seen = outcomes("d/root");
  EXPECT_TRUE(seen.contains("old"));
  EXPECT_TRUE(seen.contains("new"));
  EXPECT_TRUE(seen.contains(""));
  EXPECT_EQ(content(*files_.crash_image(CrashKind::kNamesFirst, 1), "d/root"), "");
  EXPECT_EQ(content(*files_.crash_image(CrashKind::kContentsFirst, 1), "d/root"), "old");
}

TEST_F(SimTest, RemovalMayBeUndone) {
  ASSERT_TRUE(put("d/f", "x")->sync().ok());
  ASSERT_TRUE(files_.sync_dir("d").ok());
  ASSERT_TRUE(files_.remove("d/f").ok());
  EXPECT_EQ(outcomes("d/f"), (std::set<std::string>{"(missing)", "x"}));
}

TEST_F(SimTest, PrefixKeepsNoLaterItemWithoutTheEarlier) {
  auto first = files_.create("d/1").value();
  auto second = files_.create("d/2").value();
  ASSERT_TRUE(files_.sync_dir("d").ok());
  ASSERT_TRUE(first->append(as_bytes_of("one")).ok());
  ASSERT_TRUE(second->append(as_bytes_of("two")).ok());
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto image = files_.crash_image(CrashKind::kPrefix, seed);
    seen.insert(content(*image, "d/1") + "+" + content(*image, "d/2"));
  }
  EXPECT_EQ(seen, (std::set<std::string>{"+", "one+", "one+two"}));
}

TEST_F(SimTest, FailedSyncLosesTheDataForGood) {
  for (const bool shown : {true, false}) {
    auto file = files_.create("d/f").value();
    ASSERT_TRUE(files_.sync_dir("d").ok());
    ASSERT_TRUE(file->append(as_bytes_of("lost")).ok());
    FileFault fault{io_error("EIO")};
    fault.reads_show_lost = shown;
    files_.fail(FileOp::kSync, "d/f", 1, fault, false);
    EXPECT_EQ(file->sync().code(), Code::kIoError);
    EXPECT_EQ(content(files_, "d/f"), shown ? "lost" : "");
    EXPECT_TRUE(file->sync().ok()) << "the trap: the second one succeeds";
    EXPECT_FALSE(outcomes("d/f").contains("lost"));
  }
}

TEST_F(SimTest, CrashAtMutationStopsEverything) {
  auto file = put("d/f", "x");
  ASSERT_TRUE(file->sync().ok());
  ASSERT_TRUE(files_.sync_dir("d").ok());
  files_.crash_at_mutation(2);
  EXPECT_TRUE(file->append(as_bytes_of("y")).ok());
  EXPECT_FALSE(file->sync().ok());
  EXPECT_TRUE(files_.crashed());
  EXPECT_FALSE(files_.read("d/f", 10).has_value());
  EXPECT_EQ(content(*files_.crash_image(CrashKind::kKeepAll, 1), "d/f"), "xy");
  EXPECT_EQ(content(*files_.crash_image(CrashKind::kDropAll, 1), "d/f"), "x");
}

TEST_F(SimTest, CapacityAndShortWrites) {
  auto file = files_.create("d/f").value();
  files_.set_capacity(5);
  EXPECT_TRUE(file->append(as_bytes_of("abc")).ok());
  EXPECT_EQ(files_.free_bytes("d").value(), 2U);
  EXPECT_EQ(file->append(as_bytes_of("defg")).code(), Code::kStorageFull);
  EXPECT_EQ(files_.free_bytes("d").value(), 0U);
  EXPECT_EQ(content(files_, "d/f"), "abcde");
  files_.set_capacity(100);
  files_.fail(FileOp::kAppend, "d/f", 2, FileFault{io_error("EIO"), 1}, true);
  EXPECT_TRUE(file->append(as_bytes_of("f")).ok());
  EXPECT_FALSE(file->append(as_bytes_of("gh")).ok());
  EXPECT_FALSE(file->append(as_bytes_of("ij")).ok());
  EXPECT_EQ(content(files_, "d/f"), "abcdefgi");
}

TEST_F(SimTest, TraceNamesEachMutation) {
  files_.start_trace();
  auto file = put("d/f", "abc");
  ASSERT_TRUE(file->sync().ok());
  ASSERT_TRUE(files_.rename("d/f", "d/g").ok());
  content(files_, "d/g");
  EXPECT_EQ(files_.take_trace(),
            (std::vector<std::string>{"create d/f", "append d/f 3", "sync d/f", "rename d/f d/g"}));
}

TEST_F(SimTest, ImagesAreIndependent) {
  auto file = put("d/f", std::string(10000, 'x'));
  ASSERT_TRUE(file->sync().ok());
  ASSERT_TRUE(files_.sync_dir("d").ok());
  auto image = files_.crash_clone(1, 50);
  ASSERT_TRUE(file->append(as_bytes_of("tail")).ok());
  ASSERT_TRUE(file->truncate(3).ok());
  EXPECT_EQ(content(*image, "d/f"), std::string(10000, 'x'));
  auto other = image->open_for_append("d/f").value();
  ASSERT_TRUE(other->append(as_bytes_of("y")).ok());
  EXPECT_EQ(content(files_, "d/f"), "xxx");
}

TEST_F(SimTest, ThreadsMayShareIt) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      auto file = files_.create("d/" + std::to_string(t)).value();
      for (int i = 0; i < 200; ++i) {
        EXPECT_TRUE(file->append(as_bytes_of("0123456789")).ok());
        EXPECT_TRUE(file->sync().ok());
      }
    });
  }
  for (int i = 0; i < 20; ++i) files_.crash_clone(static_cast<uint64_t>(i), 50);
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(files_.file_size("d/3").value(), 2000u);
}

}  // namespace
}  // namespace aionbd
