// The root, and the golden trace of the calls that make it durable.
#include "storage/manifest.h"

#include <gtest/gtest.h>

#include "io/sim_file_system.h"
#include "storage/storage.h"

namespace aionbd::manifest_test {
namespace {

Manifest sample() {
  Manifest out;
  out.store_id = 0x1122334455667788;
  out.number = 3;
  out.replay_after = 40;
  out.durable_lsn = 41;
  out.segments = {{1, 1000, 11}, {7, 2000, 22}};
  out.catalog = "catalog bytes";
  return out;
}

TEST(ManifestTest, RoundTrip) {
  const Manifest manifest = sample();
  const std::string bytes = encode_manifest(manifest);
  EXPECT_EQ(bytes.size(), 64u + 2 * 24 + 16 + 8);
  const Manifest back = decode_manifest(as_bytes_of(bytes), "M").value();
  EXPECT_EQ(back.store_id, manifest.store_id);
  EXPECT_EQ(back.number, 3u);
  EXPECT_EQ(back.replay_after, 40u);
  EXPECT_EQ(back.durable_lsn, 41u);
  ASSERT_EQ(back.segments.size(), 2u);
  EXPECT_EQ(back.segments[1].trailer_checksum, 22u);
  EXPECT_EQ(back.catalog, "catalog bytes");
}

TEST(ManifestTest, EveryFlippedBitAndEveryLengthIsFound) {
  const std::string whole = encode_manifest(sample());
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      const auto status = decode_manifest(as_bytes_of(damaged), "M").status();
      ASSERT_EQ(status.code(), Code::kCorruption) << at;
      ASSERT_NE(status.message().find("'M'"), std::string::npos);
    }
  }
  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_FALSE(
        decode_manifest(as_bytes_of(std::string_view(whole).substr(0, size)), "M").has_value());
  }
  EXPECT_FALSE(decode_manifest(as_bytes_of(whole + std::string(8, '\0')), "M").has_value());
}

/// `whole` with a field replaced, and a checksum that fits: what only malice or a defect makes.
std::string forged(size_t offset, uint64_t value) {
  std::string out = encode_manifest(sample());
  out.replace(offset, 8, as_text(bytes_of(value)));
  const auto header = read_as<ManifestHeader>(as_bytes_of(out));
  const Bytes body = as_bytes_of(out).first(out.size() - 8);
  const uint64_t sum = checksum(body, checksum_seed(header.store_id, header.number, kSeedManifest));
  out.replace(out.size() - 8, 8, as_text(bytes_of(sum)));
  return out;
}

TEST(ManifestTest, ForgedSizesAreRefusedWithoutAllocating) {
  for (const uint64_t value : {uint64_t{3}, uint64_t{1} << 32, UINT64_MAX, UINT64_MAX / 24 + 1}) {
    EXPECT_FALSE(decode_manifest(as_bytes_of(forged(48, value)), "M").has_value());
    EXPECT_FALSE(decode_manifest(as_bytes_of(forged(56, value)), "M").has_value());
  }
  EXPECT_FALSE(decode_manifest(as_bytes_of(forged(64, 9)), "M").has_value()) << "ids out of order";
  EXPECT_FALSE(decode_manifest(as_bytes_of(forged(32, 99)), "M").has_value()) << "replay_after";
  EXPECT_FALSE(decode_manifest(as_bytes_of(forged(24, 0)), "M").has_value()) << "number";
  for (const uint64_t unknown : {uint64_t{0}, uint64_t{1} | uint64_t{1} << 32}) {
    const auto refused = decode_manifest(as_bytes_of(forged(8, unknown)), "M").status();
    EXPECT_EQ(refused.code(), Code::kCorruption);
    EXPECT_NE(refused.message().find("unknown fields"), std::string::npos) << refused.message();
  }
  const auto newer = decode_manifest(as_bytes_of(forged(8, kFormatVersion + 1)), "M").status();
  EXPECT_NE(newer.message().find("newer version"), std::string::npos) << newer.message();
}

TEST(ManifestTest, WhatCannotBeReadIsTold) {
  SimFileSystem files;
  EXPECT_EQ(read_manifest(&files, "d").status().code(), Code::kNotFound);
  ASSERT_TRUE(files.make_dirs("d").ok());
  ManifestStep step;
  ASSERT_TRUE(write_manifest(&files, "d", sample(), &step).ok());
  EXPECT_EQ(read_manifest(&files, "d")->number, 3u);
  files.fail(FileOp::kRead, "MANIFEST", 1, FileFault{io_error("EIO")}, false);
  EXPECT_EQ(read_manifest(&files, "d").status().code(), Code::kIoError);
  // As a file system refuses a file that is longer than asked for: no manifest of ours is.
  files.fail(FileOp::kRead, "MANIFEST", 1, FileFault{resource_exhausted("too long")}, false);
  EXPECT_EQ(read_manifest(&files, "d").status().code(), Code::kCorruption);
}

// ---- Publishing --------------------------------------------------------------------------------

class PublishTest : public ::testing::Test {
 protected:
  std::unique_ptr<Storage> open(SimFileSystem& files) {
    StorageOptions options;
    options.dir = "store";
    options.files = &files;
    options.clock = &system_clock_source();
    return Storage::open(std::move(options)).value();
  }
  static void write_segment(Storage& storage, SegmentId id) {
    auto writer = storage.new_segment(id).value();
    ASSERT_TRUE(writer->begin_section(1).ok());
    ASSERT_TRUE(writer->append(as_bytes_of("content")).ok());
    held().push_back(writer->finish().value());
  }
  static std::vector<std::shared_ptr<SegmentFile>>& held() {
    static std::vector<std::shared_ptr<SegmentFile>> files;
    return files;
  }
  void TearDown() override { held().clear(); }
};

TEST_F(PublishTest, GoldenTraceOfOpenCommitAndCheckpoint) {
  SimFileSystem files;
  files.start_trace();
  auto storage = open(files);
  EXPECT_EQ(
      files.take_trace(),
      (std::vector<std::string>{
          "make_dirs store", "lock store/LOCK", "sync_dir .",
          "create store/wal-0000000000000001.log", "append store/wal-0000000000000001.log 64",
          "sync store/wal-0000000000000001.log", "sync_dir store", "create store/MANIFEST.tmp",
          "append store/MANIFEST.tmp 72", "sync store/MANIFEST.tmp",
          "rename store/MANIFEST.tmp store/MANIFEST", "sync_dir store", "sync_dir store",
          // Like any opening from here on: what was found is made durable, then an epoch.
          "sync store/wal-0000000000000001.log", "append store/wal-0000000000000001.log 48",
          "sync store/wal-0000000000000001.log"}));
  const Ticket ticket = storage->append("12345678", storage->generation()).value();
  ASSERT_TRUE(storage->commit(ticket).ok());
  EXPECT_EQ(files.take_trace(),
            (std::vector<std::string>{"append store/wal-0000000000000001.log 56",
                                      "sync store/wal-0000000000000001.log"}));
  const Lsn after = storage->rotate_log().value();
  EXPECT_EQ(files.take_trace(),
            (std::vector<std::string>{"create store/wal-0000000000000002.log",
                                      "append store/wal-0000000000000002.log 64",
                                      "sync store/wal-0000000000000002.log", "sync_dir store"}));
  write_segment(*storage, 1);
  EXPECT_EQ(files.take_trace(), (std::vector<std::string>{"create store/0000000000000001.seg",
                                                          "append store/0000000000000001.seg 224",
                                                          "sync store/0000000000000001.seg"}));
  ASSERT_TRUE(storage->publish("catalog!", {1}, after).ok());
  EXPECT_EQ(files.take_trace(),
            (std::vector<std::string>{"sync_dir store", "create store/MANIFEST.tmp",
                                      "append store/MANIFEST.tmp 104", "sync store/MANIFEST.tmp",
                                      "rename store/MANIFEST.tmp store/MANIFEST", "sync_dir store",
                                      "remove store/wal-0000000000000001.log"}));
  storage.reset();
  EXPECT_EQ(files.take_trace(),
            (std::vector<std::string>{"append store/wal-0000000000000002.log 48",
                                      "sync store/wal-0000000000000002.log"}));
}

/// Fails the publish of segment 2 at the nth call of `op` on a path with `part`.
class FailedPublishTest : public PublishTest {
 protected:
  Status publish_with(FileOp op, const std::string& part, uint64_t nth, const Status& error) {
    storage_ = open(files_);
    write_segment(*storage_, 1);
    EXPECT_TRUE(storage_->publish("one", {1}, 0).ok());
    write_segment(*storage_, 2);
    files_.fail(op, part, nth, FileFault{error}, false);
    const Status status = storage_->publish("two", {2}, 0);
    files_.set_hook(nullptr);
    return status;
  }
  std::string root_after_crash(CrashKind kind) {
    auto image = files_.crash_image(kind, 1);
    return std::string(open(*image)->catalog());
  }

  SimFileSystem files_;
  std::unique_ptr<Storage> storage_;
};

TEST_F(FailedPublishTest, NoSpaceLeavesTheOldRootAndMayBeTriedAgain) {
  EXPECT_EQ(publish_with(FileOp::kAppend, "MANIFEST", 1, storage_full("full")).code(),
            Code::kStorageFull);
  EXPECT_TRUE(storage_->health().ok());
  EXPECT_EQ(root_after_crash(CrashKind::kKeepAll), "one");
  EXPECT_TRUE(files_.file_size("store/0000000000000001.seg").has_value());
  ASSERT_TRUE(storage_->publish("two", {2}, 0).ok());
  EXPECT_EQ(root_after_crash(CrashKind::kDropAll), "two");
  EXPECT_FALSE(files_.file_size("store/0000000000000001.seg").has_value());
}

TEST_F(FailedPublishTest, UnsyncedTempFileLeavesTheOldRoot) {
  EXPECT_EQ(publish_with(FileOp::kSync, "MANIFEST", 1, io_error("EIO")).code(), Code::kIoError);
  EXPECT_EQ(root_after_crash(CrashKind::kKeepAll), "one");
}

TEST_F(FailedPublishTest, UnknownOutcomeIsFailStopAndRemovesNothing) {
  EXPECT_EQ(publish_with(FileOp::kSyncDir, "store", 2, io_error("EIO")).code(), Code::kUnavailable);
  EXPECT_FALSE(storage_->health().ok());
  EXPECT_FALSE(storage_->append("x", storage_->generation()).has_value());
  EXPECT_EQ(root_after_crash(CrashKind::kKeepAll), "two");
  EXPECT_EQ(root_after_crash(CrashKind::kDropAll), "one");
}

TEST_F(FailedPublishTest, FailedRenameIsFailStop) {
  EXPECT_EQ(publish_with(FileOp::kRename, "MANIFEST", 1, io_error("EIO")).code(),
            Code::kUnavailable);
  EXPECT_EQ(root_after_crash(CrashKind::kKeepAll), "one");
}

TEST_F(FailedPublishTest, FailedDirectorySyncBeforeIsFailStop) {
  EXPECT_EQ(publish_with(FileOp::kSyncDir, "store", 1, io_error("EIO")).code(), Code::kUnavailable);
  EXPECT_EQ(root_after_crash(CrashKind::kKeepAll), "one");
}

TEST_F(FailedPublishTest, RemovalIsTriedAgain) {
  EXPECT_TRUE(publish_with(FileOp::kRemove, ".seg", 1, io_error("EIO")).ok());
  EXPECT_TRUE(files_.file_size("store/0000000000000001.seg").has_value());
  ASSERT_TRUE(storage_->publish("three", {2}, 0).ok());
  EXPECT_FALSE(files_.file_size("store/0000000000000001.seg").has_value());
}

}  // namespace
}  // namespace aionbd::manifest_test
