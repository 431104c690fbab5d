// backup_store and restore_store on real stores: what comes back is what was there; what is damaged
// or hostile changes nothing.
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <zstd.h>

#include <functional>

#include "aionbd/store.h"
#include "base/checksum.h"
#include "engine/test_store.h"
#include "storage/backup.h"

namespace aionbd {
namespace {

class StoreBackupTest : public StoreTest {
 protected:
  StoreBackupTest() : backups_(root_ + "/backups"), restored_(root_ + "/restored") {}

  BackupReport backup() {
    const auto report = backup_store(dir_, backups_);
    EXPECT_TRUE(report.has_value()) << report.status().to_string();
    return report.has_value() ? *report : BackupReport();
  }
  Status restore(const RestoreOptions& options = {}) {
    return restore_store(backups_, restored_, options).status();
  }
  /// The files of the backup directory, without its lock.
  std::vector<std::string> backup_files() const {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(backups_)) {
      const std::string name = entry.path().filename().string();
      if (name != "LOCK") out.push_back(backups_ + "/" + name);
    }
    std::sort(out.begin(), out.end());
    return out;
  }

  std::string backups_;
  std::string restored_;
};

TEST_F(StoreBackupTest, ComesBackByteForByte) {
  const auto before = bytes_of_dir(dir_);
  const BackupReport report = backup();
  EXPECT_EQ(report.number, 1u);
  EXPECT_EQ(report.files_shared, 0u);
  EXPECT_LT(report.packed_bytes, report.raw_bytes);
  EXPECT_EQ(bytes_of_dir(dir_), before) << "the store was only read";
  ASSERT_TRUE(restore().ok());
  EXPECT_EQ(bytes_of_dir(restored_), before);
  EXPECT_EQ(content_of(restored_), content_of(dir_));
  EXPECT_FALSE(std::filesystem::exists(restored_ + ".restoring"));
}

TEST_F(StoreBackupTest, SecondBackupStoresOnlyWhatIsNew) {
  const BackupReport first = backup();
  const StoreContent content_then = content_of(dir_);
  {
    const auto database = Database::open(options_for(dir_)).value();
    const auto collection = database->collection("docs").value();
    ASSERT_TRUE(collection->upsert(docs(9000, 10, 3)).has_value());
    ASSERT_TRUE(database->checkpoint().ok());
  }
  const StoreContent content_now = content_of(dir_);
  const BackupReport second = backup();
  EXPECT_EQ(second.number, 2u);
  EXPECT_GE(second.files_shared, 3u);
  EXPECT_LT(second.written_bytes, first.written_bytes / 4);
  ASSERT_TRUE(restore().ok());
  EXPECT_EQ(content_of(restored_), content_now);
  EXPECT_NE(content_now, content_then);
  RestoreOptions options;
  options.number = 1;
  options.replace = true;
  const auto older = restore_store(backups_, restored_, options);
  ASSERT_TRUE(older.has_value()) << older.status().to_string();
  EXPECT_EQ(content_of(restored_), content_then);
  EXPECT_EQ(content_of(older->set_aside), content_now) << "the replaced store is kept";
  const auto list = list_store_backups(backups_);
  ASSERT_TRUE(list.has_value());
  EXPECT_EQ(list->size(), 2u);
}

TEST_F(StoreBackupTest, KeepsTheNewestAndWhatTheyNeed) {
  BackupOptions options;
  options.keep = 2;
  EXPECT_EQ(backup_store(dir_, backups_, options)->removed, 0u);
  const std::string foreign[] = {backups_ + "/notes.zst", backups_ + "/seg-1-2-3.zst",
                                 backups_ + "/BACKUP-x"};
  for (const std::string& path : foreign) std::ofstream(path) << "mine";
  const auto change = [this](uint64_t first) {
    const auto database = Database::open(options_for(dir_)).value();
    const auto collection = database->collection("docs").value();
    EXPECT_TRUE(collection->upsert(docs(first, 10, 3)).has_value());
    EXPECT_TRUE(collection->optimize().ok());
  };
  change(9000);
  const StoreContent second = content_of(dir_);
  EXPECT_EQ(backup_store(dir_, backups_, options)->removed, 0u);
  change(9100);
  const StoreContent third = content_of(dir_);
  // What a backup that was cut short may leave.
  const std::string cut_short =
      backups_ + "/log-" + std::string(15, '0') + "9-" + std::string(16, '0') + ".zst.tmp";
  std::ofstream(cut_short) << "torn";
  const auto report = backup_store(dir_, backups_, options);
  ASSERT_TRUE(report.has_value()) << report.status().to_string();
  EXPECT_EQ(report->number, 3u);
  EXPECT_EQ(report->removed, 1u);
  EXPECT_GT(report->removed_bytes, 1000u);
  EXPECT_FALSE(std::filesystem::exists(cut_short));
  for (const std::string& path : foreign) EXPECT_TRUE(std::filesystem::exists(path)) << path;
  const auto list = list_store_backups(backups_);
  ASSERT_TRUE(list.has_value());
  ASSERT_EQ(list->size(), 2u);
  RestoreOptions restoring;
  for (const auto& [number, content] : {std::pair(2, second), std::pair(3, third)}) {
    restoring.number = number;
    const auto restored = restore(restoring);
    ASSERT_TRUE(restored.ok()) << restored.to_string();
    EXPECT_EQ(content_of(restored_), content);
    restoring.replace = true;
  }
  restoring.number = 1;
  EXPECT_EQ(restore(restoring).code(), Code::kNotFound);
}

TEST_F(StoreBackupTest, RefusesWhatItMustNotTouch) {
  backup();
  std::filesystem::create_directories(restored_);
  ASSERT_TRUE(restore().ok()) << "an empty directory may be taken";
  const auto before = bytes_of_dir(restored_);
  EXPECT_EQ(restore().code(), Code::kAlreadyExists);
  RestoreOptions replace;
  replace.replace = true;
  {
    const auto database = Database::open(options_for(restored_)).value();
    EXPECT_EQ(restore(replace).code(), Code::kInUse);
    EXPECT_EQ(backup_store(restored_, backups_).status().code(), Code::kInUse);
  }
  replace.number = 7;
  EXPECT_EQ(restore(replace).code(), Code::kNotFound);
  EXPECT_EQ(backup_store(root_ + "/nothing", backups_).status().code(), Code::kNotFound);
  const std::string other = root_ + "/other";
  fill(other);
  EXPECT_EQ(backup_store(other, backups_).status().code(), Code::kFailedPrecondition);
  const auto stopped =
      backup_store(dir_, root_ + "/stopped", {}, [](uint64_t, uint64_t) { return false; });
  EXPECT_EQ(stopped.status().code(), Code::kUnavailable);
  EXPECT_TRUE(list_store_backups(root_ + "/stopped")->empty());
}

TEST_F(StoreBackupTest, DamagedStoreIsNotBackedUp) {
  for (const std::string& name :
       {names(".seg").front(), names(".log").back(), std::string("MANIFEST")}) {
    const uint64_t middle = std::filesystem::file_size(file(name)) / 2;
    flip(file(name), middle);
    EXPECT_EQ(backup_store(dir_, backups_).status().code(), Code::kCorruption) << name;
    flip(file(name), middle);
  }
  EXPECT_EQ(backup().number, 1u);
}

// A byte of each file of a backup, and each file cut or missing: refused, and the old store stays.
TEST_F(StoreBackupTest, DamagedBackupChangesNothing) {
  backup();
  ASSERT_TRUE(restore().ok());
  const auto before = bytes_of_dir(restored_);
  RestoreOptions replace;
  replace.replace = true;
  const auto expect_refused = [&](const std::string& what) {
    SCOPED_TRACE(what);
    const Status status = restore(replace);
    EXPECT_TRUE(status.code() == Code::kCorruption || status.code() == Code::kNotFound)
        << status.to_string();
    EXPECT_EQ(bytes_of_dir(restored_), before);
  };
  for (const std::string& path : backup_files()) {
    const std::string bytes = read(path);
    for (const size_t at : {size_t{0}, size_t{9}, bytes.size() / 3, bytes.size() - 1}) {
      flip(path, at);
      expect_refused(path + " flipped at " + std::to_string(at));
      flip(path, at);
    }
    write(path, bytes.substr(0, bytes.size() - 1));
    expect_refused(path + " cut");
    write(path, bytes + "more");
    expect_refused(path + " longer");
    std::filesystem::remove(path);
    expect_refused(path + " missing");
    write(path, bytes);
  }
  EXPECT_TRUE(restore(replace).ok());
}

// A chunk that declares more than it may, under a right length: refused before anything is
// allocated for it.
TEST_F(StoreBackupTest, ImpossibleSizesAreRefused) {
  backup();
  for (const std::string& path : backup_files()) {
    if (path.find("/seg-") == std::string::npos) continue;
    std::string bytes = read(path);
    for (size_t i = 0; i < 8; ++i) bytes[i] = '\xFF';
    write(path, bytes);
    EXPECT_EQ(restore().code(), Code::kCorruption);
    EXPECT_FALSE(std::filesystem::exists(restored_));
    break;
  }
}

// Manifests with right checksums that claim what cannot be: refused before a file is made.
TEST_F(StoreBackupTest, LyingManifestsAreRefused) {
  backup();
  const std::string path = backups_ + "/BACKUP-0000000000000001";
  const std::string whole = read(path);
  using Change = std::function<void(BackupHeader&, std::vector<BackupFile>&)>;
  const auto expect_refused = [&](const std::string& what, const std::string& reason,
                                  const Change& change, Code code = Code::kCorruption) {
    SCOPED_TRACE(what);
    auto header = read_as<BackupHeader>(as_bytes_of(whole));
    std::vector<BackupFile> files;
    for (uint64_t i = 0; i < header.files_count; ++i) {
      files.push_back(
          read_as<BackupFile>(as_bytes_of(whole).subspan(sizeof(header) + i * sizeof(BackupFile))));
    }
    const std::string manifest =
        whole.substr(sizeof(header) + files.size() * sizeof(BackupFile), header.manifest_bytes);
    change(header, files);
    std::string forged(reinterpret_cast<const char*>(&header), sizeof(header));
    for (const BackupFile& file : files) {
      forged.append(reinterpret_cast<const char*>(&file), sizeof(file));
    }
    forged += manifest;
    const uint64_t sum =
        checksum(as_bytes_of(forged), checksum_seed(header.store_id, header.number, 0x4241434B));
    forged.append(reinterpret_cast<const char*>(&sum), sizeof(sum));
    write(path, forged);
    const Status status = restore();
    EXPECT_EQ(status.code(), code);
    EXPECT_NE(status.message().find(reason), std::string::npos) << status.message();
    EXPECT_FALSE(std::filesystem::exists(restored_));
    EXPECT_FALSE(std::filesystem::exists(restored_ + ".restoring/MANIFEST"));
  };
  using H = BackupHeader;
  using F = std::vector<BackupFile>;
  const auto a_log = [](F& files) -> BackupFile& { return files.back(); };
  expect_refused("a segment twice", "twice", [](H& header, F& files) {
    files.insert(files.begin(), files.front());
    ++header.files_count;
  });
  expect_refused("a log twice", "out of order", [&](H& header, F& files) {
    files.push_back(a_log(files));
    ++header.files_count;
  });
  expect_refused("a segment more", "more segments", [](H& header, F& files) {
    files.insert(files.begin(), files.front());
    files.front().id = 77;
    ++header.files_count;
  });
  expect_refused("a segment less", "missing", [](H& header, F& files) {
    files.erase(files.begin());
    --header.files_count;
  });
  expect_refused("countless files", "more files than bytes",
                 [](H& header, F&) { header.files_count = uint64_t{1} << 60; });
  expect_refused("a huge manifest", "contradict",
                 [](H& header, F&) { header.manifest_bytes = uint64_t{1} << 63; });
  expect_refused("a kind unknown", "unknown kind",
                 [&](H&, F& files) { a_log(files).kind = static_cast<BackupKind>(3); });
  expect_refused("another number", "another backup's name",
                 [](H& header, F&) { header.number = 2; });
  expect_refused("a newer version", "newer version",
                 [](H& header, F&) { header.version = kFormatVersion + 1; });
  expect_refused("another store", "two store ids", [](H& header, F&) { ++header.store_id; });
  expect_refused("no log", "does not fit", [](H& header, F& files) {
    files.pop_back();
    --header.files_count;
  });
  expect_refused("a log too long by a byte", "not what the backup says",
                 [&](H&, F& files) { ++a_log(files).raw_bytes; });
  expect_refused(
      "a log of exabytes", "bytes, the file system of",
      [&](H&, F& files) { a_log(files).raw_bytes = uint64_t{1} << 62; }, Code::kStorageFull);
  expect_refused("sizes beyond counting", "impossible", [&](H& header, F& files) {
    a_log(files).raw_bytes = uint64_t{1} << 63;
    files.push_back(a_log(files));
    ++files.back().id;
    ++header.files_count;
  });
  write(path, whole);
  EXPECT_TRUE(restore().ok());
}

// A packed file that would unpack to more than it says.
TEST_F(StoreBackupTest, BombIsRefused) {
  backup();
  const std::string zeros(size_t{1} << 20, '\0');
  std::string packed(ZSTD_compressBound(zeros.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), zeros.data(), zeros.size(), 3));
  for (const std::string& path : backup_files()) {
    if (path.find("/log-") == std::string::npos) continue;
    BackupChunk chunk;
    chunk.raw_bytes = 16;
    chunk.packed_bytes = static_cast<uint32_t>(packed.size());
    std::string bomb(reinterpret_cast<const char*>(&chunk), sizeof(chunk));
    bomb += packed;
    const std::string before = read(path);
    bomb.resize(before.size(), '\0');
    write(path, bomb);
    const Status status = restore();
    EXPECT_EQ(status.code(), Code::kCorruption);
    EXPECT_NE(status.message().find("does not unpack"), std::string::npos) << status.message();
    EXPECT_FALSE(std::filesystem::exists(restored_));
    write(path, before);
  }
  EXPECT_TRUE(restore().ok());
}

// Whatever lies where a file should: it is not followed, not waited for, and not read for ever.
TEST_F(StoreBackupTest, OnlyRegularFilesAreRead) {
  backup();
  const auto expect_refused = [&](const std::string& what) {
    const Status status = restore();
    EXPECT_FALSE(status.ok()) << what;
    EXPECT_FALSE(status.message().empty()) << what;
    EXPECT_FALSE(std::filesystem::exists(restored_)) << what;
  };
  for (const std::string& path : backup_files()) {
    const std::string moved = root_ + "/moved";
    std::filesystem::rename(path, moved);
    std::filesystem::create_symlink(moved, path);
    expect_refused(path + " is a symbolic link");
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    expect_refused(path + " is a directory");
    std::filesystem::remove(path);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    expect_refused(path + " is a pipe");
    std::filesystem::remove(path);
    if (mknod(path.c_str(), S_IFCHR | 0600, makedev(1, 5)) == 0) {  // as root only
      expect_refused(path + " is a device");
      std::filesystem::remove(path);
    }
    std::filesystem::rename(moved, path);
  }
  // Names that are no number of a backup are nobody's.
  write(backups_ + "/BACKUP-..", "x");
  write(backups_ + "/BACKUP-000000000000000g", "x");
  std::filesystem::create_symlink("/etc/passwd", backups_ + "/BACKUP-root");
  EXPECT_TRUE(restore().ok());
  EXPECT_EQ(list_store_backups(backups_)->size(), 1U);
}

TEST_F(StoreBackupTest, LeftoversOfACrashAreNoHindrance) {
  backup();
  write(backups_ + "/BACKUP-0000000000000002.tmp", "half");
  write(backups_ + "/log-0000000000000002-0000000000000001.zst.tmp", "half");
  std::filesystem::create_directories(restored_ + ".restoring");
  write(restored_ + ".restoring/0000000000000001.seg", "half");
  write(restored_ + ".restoring/MANIFEST.tmp", "half");
  EXPECT_EQ(backup().number, 2u);
  EXPECT_TRUE(restore().ok());
  EXPECT_EQ(content_of(restored_), content_of(dir_));
  std::filesystem::create_directories(restored_ + "2.restoring");
  write(restored_ + "2.restoring/mine", "keep");
  restored_ += "2";
  EXPECT_EQ(restore().code(), Code::kAlreadyExists);
  EXPECT_EQ(read(restored_ + ".restoring/mine"), "keep");
}

}  // namespace
}  // namespace aionbd
