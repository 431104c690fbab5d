// Storage as a whole: what is written comes back, what is published lives, what is not is garbage.
#include "storage/storage.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "io/sim_file_system.h"
#include "storage/format.h"

namespace aionbd {
namespace {

/// A fresh directory, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "aionbd-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class StorageTest : public ::testing::Test {
 protected:
  StorageOptions options() {
    StorageOptions out;
    out.dir = dir_.path() + "/store";
    out.files = &posix_file_system();
    out.clock = &system_clock_source();
    return out;
  }
  std::unique_ptr<Storage> open() { return Storage::open(options()).value(); }

  static void write(Storage& storage, const std::string& record) {
    const Ticket ticket = storage.append(record, storage.generation()).value();
    ASSERT_TRUE(storage.commit(ticket).ok());
    ASSERT_GE(storage.committed_lsn(), ticket.lsn);
  }
  static std::vector<std::string> replayed(Storage& storage) {
    std::vector<std::string> out;
    const Status status = storage.replay([&](Lsn, Bytes record) {
      out.emplace_back(as_text(record));
      return Status();
    });
    EXPECT_TRUE(status.ok()) << status.to_string();
    return out;
  }
  static std::shared_ptr<SegmentFile> write_segment(Storage& storage, SegmentId id,
                                                    const std::string& text) {
    auto writer = storage.new_segment(id).value();
    EXPECT_TRUE(writer->begin_section(7).ok());
    EXPECT_TRUE(writer->append(as_bytes_of(text)).ok());
    return writer->finish().value();
  }

  TempDir dir_;
};

TEST_F(StorageTest, RecordsComeBackInOrder) {
  {
    auto storage = open();
    EXPECT_EQ(storage->catalog(), "");
    EXPECT_TRUE(replayed(*storage).empty());
    write(*storage, "one");
    write(*storage, "");
    write(*storage, std::string(1000, 'x'));
  }
  auto storage = open();
  EXPECT_EQ(storage->last_lsn(), 3u);
  EXPECT_EQ(storage->committed_lsn(), 3u);
  EXPECT_EQ(replayed(*storage), (std::vector<std::string>{"one", "", std::string(1000, 'x')}));
  write(*storage, "four");
  storage.reset();
  EXPECT_EQ(replayed(*open()).back(), "four");
}

TEST_F(StorageTest, CheckpointReplacesTheLogBeforeIt) {
  {
    auto storage = open();
    write(*storage, "one");
    write(*storage, "two");
    const Lsn lsn = storage->rotate_log().value();
    EXPECT_EQ(lsn, 2u);
    write(*storage, "three");
    write_segment(*storage, 17, "content");
    ASSERT_TRUE(storage->publish("catalog one", {17}, lsn).ok());
    EXPECT_FALSE(std::filesystem::exists(dir_.path() + "/store/" + log_name(1)));
  }
  {
    auto storage = open();
    EXPECT_EQ(storage->catalog(), "catalog one");
    EXPECT_EQ(replayed(*storage), std::vector<std::string>{"three"});
    const auto file = storage->open_segment(17).value();
    EXPECT_EQ(as_text(file->section(7).value().all().value()), "content");
    EXPECT_EQ(storage->open_segment(18).status().code(), Code::kNotFound);
    ASSERT_TRUE(storage->publish("catalog two", {}, storage->rotate_log().value()).ok());
    EXPECT_EQ(as_text(file->section(7).value().all().value()), "content") << "still mapped";
    EXPECT_FALSE(std::filesystem::exists(dir_.path() + "/store/" + segment_name(17)));
  }
  auto storage = open();
  EXPECT_EQ(storage->catalog(), "catalog two");
  EXPECT_TRUE(replayed(*storage).empty());
  EXPECT_EQ(storage->last_lsn(), 3u);
}

TEST_F(StorageTest, LeftoversAreRemovedAndForeignFilesAreNot) {
  write(*open(), "one");
  const std::string store = dir_.path() + "/store/";
  const auto touch = [&](const std::string& name) {
    auto file = posix_file_system().create(store + name).value();
    ASSERT_TRUE(file->append(as_bytes_of("junk")).ok());
  };
  const std::vector<std::string> own = {segment_name(5), "MANIFEST.tmp", log_name(9) + ".tmp",
                                        segment_name(6) + ".tmp"};
  const std::vector<std::string> foreign = {"notes.txt", "x.tmp", "wal-1.log", "5.seg",
                                            "wal-000000000000000A.log"};
  for (const auto& name : own) touch(name);
  for (const auto& name : foreign) touch(name);
  std::vector<std::string> warnings;
  auto with_log = options();
  with_log.logger = Logger([&](LogLevel level, std::string_view line) {
    if (level == LogLevel::kWarning) warnings.emplace_back(line);
  });
  auto storage = Storage::open(with_log).value();
  EXPECT_EQ(warnings.size(), foreign.size());
  for (const auto& name : own) EXPECT_FALSE(std::filesystem::exists(store + name)) << name;
  for (const auto& name : foreign) EXPECT_TRUE(std::filesystem::exists(store + name)) << name;
}

TEST_F(StorageTest, SecondOpenIsRefused) {
  auto storage = open();
  EXPECT_EQ(Storage::open(options()).status().code(), Code::kInUse);
  storage.reset();
  EXPECT_TRUE(Storage::open(options()).has_value());
}

TEST_F(StorageTest, UnpublishedSegmentIsRemovedWhenNobodyHoldsIt) {
  auto storage = open();
  auto held = write_segment(*storage, 1, "held");
  write_segment(*storage, 2, "dropped");
  ASSERT_TRUE(storage->publish("c", {}, 0).ok());
  const std::string store = dir_.path() + "/store/";
  EXPECT_TRUE(std::filesystem::exists(store + segment_name(1)));
  EXPECT_FALSE(std::filesystem::exists(store + segment_name(2)));
  ASSERT_TRUE(storage->publish("c", {1}, 0).ok());
  held.reset();
  ASSERT_TRUE(storage->publish("c", {1}, 0).ok());
  EXPECT_TRUE(std::filesystem::exists(store + segment_name(1)));
  EXPECT_FALSE(storage->publish("c", {2}, 0).ok()) << "is gone";
  EXPECT_FALSE(storage->publish("c", {}, 99).ok()) << "beyond the log";
}

TEST_F(StorageTest, SegmentIdsAreUsedOnce) {
  auto storage = open();
  const auto fresh = write_segment(*storage, 1, "first");
  EXPECT_EQ(storage->new_segment(1).status().code(), Code::kAlreadyExists);
  EXPECT_EQ(storage->open_segment(1).value(), fresh) << "before it is published";
  ASSERT_TRUE(storage->publish("c", {1}, 0).ok());
  EXPECT_EQ(storage->new_segment(1).status().code(), Code::kAlreadyExists);
}

TEST_F(StorageTest, ManyForeignFilesAreToldInFewLines) {
  write(*open(), "one");
  constexpr size_t kForeign = 100;
  for (size_t i = 0; i < kForeign; ++i) {
    ASSERT_TRUE(
        posix_file_system().create(dir_.path() + "/store/notes-" + std::to_string(i)).has_value());
  }
  std::vector<std::string> warnings;
  auto with_log = options();
  with_log.logger = Logger([&](LogLevel, std::string_view line) { warnings.emplace_back(line); });
  auto storage = Storage::open(with_log).value();
  ASSERT_FALSE(warnings.empty());
  EXPECT_LT(warnings.size(), kForeign / 2);
  EXPECT_NE(warnings.back().find("more foreign files count="), std::string::npos)
      << warnings.back();
}

TEST_F(StorageTest, MissingManifestWithDataIsCorruption) {
  write(*open(), "one");
  std::filesystem::remove(dir_.path() + "/store/MANIFEST");
  EXPECT_EQ(Storage::open(options()).status().code(), Code::kCorruption);
}

/// On a simulated disk, which fails when told.
class SimStorageTest : public StorageTest {
 protected:
  StorageOptions sim_options() {
    StorageOptions out = options();
    out.dir = "store";
    out.files = &files_;
    return out;
  }
  std::unique_ptr<Storage> open() { return Storage::open(sim_options()).value(); }

  SimFileSystem files_;
};

/// A directory without a manifest.
struct RootlessCase {
  const char* name;
  std::vector<std::pair<std::string, std::string>> files;
  bool first_start;
};

TEST_F(SimStorageTest, OnlyWhatAFirstStartLeavesIsTakenForOne) {
  const std::string header(sizeof(LogHeader), '\0');
  const RootlessCase cases[] = {
      {"nothing", {}, true},
      {"an empty log", {{log_name(1), ""}}, true},
      {"a log of a header", {{log_name(1), header}}, true},
      {"a log of more", {{log_name(1), header + "x"}}, false},
      {"a later log", {{log_name(2), header}}, false},
      {"two logs", {{log_name(1), header}, {log_name(2), ""}}, false},
      {"a segment", {{segment_name(1), ""}}, false},
      {"a log of a header and a segment", {{log_name(1), header}, {segment_name(1), ""}}, false},
  };
  for (const RootlessCase& row : cases) {
    SCOPED_TRACE(row.name);
    const auto files = std::make_unique<SimFileSystem>();
    ASSERT_TRUE(files->make_dirs("store").ok());
    for (const auto& [name, content] : row.files) {
      ASSERT_TRUE(files->create("store/" + name).has_value());
      files->overwrite("store/" + name, content);
    }
    StorageOptions out = sim_options();
    out.files = files.get();
    const auto opened = Storage::open(out);
    EXPECT_EQ(opened.has_value(), row.first_start) << opened.status().to_string();
    if (row.first_start) continue;
    EXPECT_EQ(opened.status().code(), Code::kCorruption);
    EXPECT_NE(opened.status().message().find("'store/MANIFEST' is not there"), std::string::npos)
        << opened.status().message();
    for (const auto& [name, content] : row.files) {
      EXPECT_EQ(files->read("store/" + name, 1000).value(), content) << "untouched";
    }
  }
}

TEST_F(SimStorageTest, AnUnfinishedFirstStartIsNotJudgedUnseen) {
  ASSERT_TRUE(files_.make_dirs("store").ok());
  ASSERT_TRUE(files_.create("store/" + log_name(1)).has_value());
  files_.fail(FileOp::kFileSize, "wal", 1, FileFault{io_error("EIO")}, false);
  EXPECT_EQ(Storage::open(sim_options()).status().code(), Code::kIoError);
  files_.set_hook(nullptr);
  EXPECT_FALSE(files_.file_size("store/MANIFEST").has_value());
  write(*open(), "one");
  EXPECT_EQ(replayed(*open()), std::vector<std::string>{"one"});
}

TEST_F(SimStorageTest, NothingIsPublishedThatCannotBeSynced) {
  StorageOptions out = sim_options();
  out.durability.sync_on_write = false;
  auto storage = Storage::open(out).value();
  write(*storage, "one");
  ASSERT_TRUE(storage->publish("old", {}, 1).ok()) << "it is synced for that";
  write(*storage, "two");
  files_.fail(FileOp::kSync, "wal", 1, FileFault{io_error("EIO")}, false);
  EXPECT_EQ(storage->publish("new", {}, 2).code(), Code::kUnavailable);
  EXPECT_EQ(storage->health().code(), Code::kUnavailable);
  for (const CrashKind kind : {CrashKind::kDropAll, CrashKind::kKeepAll}) {
    const auto image = files_.crash_image(kind, 1);
    out.files = image.get();
    const auto found = Storage::open(out).value();
    EXPECT_EQ(found->catalog(), "old");
    EXPECT_EQ(found->replay_after(), 1u);
  }
}

TEST_F(SimStorageTest, WhileTheReserveIsUsedNothingIsAdded) {
  EXPECT_EQ(open()->use_reserve(), nullptr) << "there is none";
  StorageOptions out = sim_options();
  out.reserve_bytes = 1 << 20;
  auto storage = Storage::open(out).value();
  EXPECT_EQ(storage->reserve_held_bytes(), out.reserve_bytes);
  write(*storage, "one");
  const uint64_t generation = storage->generation();
  {
    const auto use = storage->use_reserve();
    ASSERT_NE(use, nullptr);
    EXPECT_EQ(storage->reserve_held_bytes(), 0u);
    EXPECT_EQ(storage->append("two", generation).status().code(), Code::kStorageFull);
    EXPECT_EQ(storage->last_lsn(), 1u) << "it has no place";
    const Ticket freeing = storage->append("delete", generation, RecordEffect::kFrees).value();
    EXPECT_TRUE(storage->commit(freeing).ok());
  }
  EXPECT_EQ(storage->generation(), generation) << "nothing else was refused for it";
  write(*storage, "three");
  files_.fail(FileOp::kSync, "wal", 1, FileFault{io_error("EIO")}, false);
  EXPECT_EQ(storage->sync().code(), Code::kOk) << "there is nothing to sync";
  const Ticket last = storage->append("four", generation).value();
  EXPECT_EQ(storage->commit(last).code(), Code::kUnavailable);
  EXPECT_EQ(storage->use_reserve(), nullptr) << "nobody can write";
  EXPECT_EQ(storage->reserve_uses(), 1u);
  storage.reset();
  EXPECT_EQ(replayed(*open()), (std::vector<std::string>{"one", "delete", "three", "four"}));
}

TEST_F(StorageTest, MissingLogOrSegmentIsCorruption) {
  {
    auto storage = open();
    write(*storage, "one");
    write_segment(*storage, 3, "s");
    ASSERT_TRUE(storage->publish("c", {3}, 0).ok());
  }
  std::filesystem::remove(dir_.path() + "/store/" + segment_name(3));
  EXPECT_EQ(open()->open_segment(3).status().code(), Code::kCorruption);
  std::filesystem::remove(dir_.path() + "/store/" + log_name(1));
  EXPECT_EQ(Storage::open(options()).status().code(), Code::kCorruption);
}

TEST_F(StorageTest, FilesOfAnotherStoreAreRefused) {
  write(*open(), "one");
  auto other = options();
  other.dir = dir_.path() + "/other";
  {
    auto storage = Storage::open(other).value();
    write(*storage, "other");
  }
  std::filesystem::copy_file(dir_.path() + "/other/" + log_name(1),
                             dir_.path() + "/store/" + log_name(1),
                             std::filesystem::copy_options::overwrite_existing);
  const Status status = Storage::open(options()).status();
  EXPECT_EQ(status.code(), Code::kCorruption);
  EXPECT_NE(status.message().find("belongs to another store"), std::string::npos);
}

TEST_F(StorageTest, ManyThreadsShareGroups) {
  constexpr int kThreads = 16;
  constexpr int kEach = 20;
  {
    auto storage = open();
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) {
          write(*storage, std::to_string(t) + "/" + std::to_string(i));
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(storage->metrics().grouped_records.value(), uint64_t{kThreads * kEach});
  }
  auto storage = open();
  const auto records = replayed(*storage);
  ASSERT_EQ(records.size(), size_t{kThreads * kEach});
  std::vector<int> next(kThreads, 0);
  for (const auto& record : records) {  // each thread's records in its order
    const int t = std::stoi(record);
    EXPECT_EQ(record, std::to_string(t) + "/" + std::to_string(next[static_cast<size_t>(t)]++));
  }
}

TEST(MemoryStorageTest, EverythingSucceedsAndTouchesNoFile) {
  StorageOptions options;
  options.persistent = false;
  options.clock = &system_clock_source();
  auto storage = Storage::open(options).value();
  EXPECT_FALSE(storage->persistent());
  const Ticket ticket = storage->append("r", storage->generation()).value();
  EXPECT_EQ(ticket.lsn, 1u);
  EXPECT_TRUE(storage->commit(ticket).ok());
  EXPECT_EQ(storage->committed_lsn(), 1u);
  EXPECT_EQ(storage->rotate_log().value(), 1u);
  auto writer = storage->new_segment(4).value();
  ASSERT_TRUE(writer->begin_section(1).ok());
  ASSERT_TRUE(writer->append(as_bytes_of("heap")).ok());
  auto file = writer->finish().value();
  EXPECT_EQ(as_text(file->section(1).value().all().value()), "heap");
  ASSERT_TRUE(storage->publish("c", {4}, 1).ok());
  file.reset();
  EXPECT_TRUE(storage->open_segment(4).has_value());
  ASSERT_TRUE(storage->publish("c", {}, 1).ok());
  EXPECT_FALSE(storage->open_segment(4).has_value());
}

}  // namespace
}  // namespace aionbd
