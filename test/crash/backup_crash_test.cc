// Power cuts during backup and restore, on the simulated disk (T27 of the plan). One run of each;
// before every file operation that changes something, every kind of image a cut could leave, and
// for each image what an operator does next. Depth 2 cuts the power at every operation of that,
// too.
//
// AIONBD_BACKUP_CUTS=all takes every image at depth 2; a random share of them otherwise
// (AIONBD_CRASH_SEED draws it).
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "engine/engine.h"
#include "engine/store_backup.h"
#include "engine/store_verify.h"
#include "io/sim_file_system.h"
#include "storage/backup.h"
#include "test/long_runs.h"

namespace aionbd::backup_crash_test {
namespace {

constexpr char kStore[] = "store";
constexpr char kBackups[] = "backups";
/// Where checks put things, in an image of their own.
constexpr char kScratch[] = "scratch";

/// Sanitized runs, which are there for what happens inside, cut at this share of the operations;
/// and images that must come of it at least.
constexpr double kShareCut = kSlowness == 1 ? 1 : 0.25;
constexpr uint64_t kImagesMin = kSlowness == 1 ? 80 : 20;
/// Of the operations at depth 2, the share that is cut.
double depth_two_share() {
  const char* text = std::getenv("AIONBD_BACKUP_CUTS");
  return text != nullptr && std::string_view(text) == "all" ? 1 : 0.02;
}
uint64_t first_seed() {
  const char* text = std::getenv("AIONBD_CRASH_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

using Content = std::map<std::string, std::map<std::string, std::vector<float>>>;

DatabaseOptions options_for(const std::string& dir) {
  DatabaseOptions options;
  options.data_dir = dir;
  options.checkpoint_interval = 1000000;
  options.search_threads = 1;
  options.recall_audit = false;
  options.index_warmup_on_boot = false;
  return options;
}

class BackupCrashTest : public testing::Test {
 protected:
  /// A store with a segment, a second one with a kill, and a log.
  void fill(float value) {
    const auto database = open_database(options_for(kStore), {&files_, &clock_}).value();
    if (database->list_collections().empty()) {
      ASSERT_TRUE(database->create_collection("c", {.dimension = 2, .metric = {}}).has_value());
    }
    const auto collection = database->collection("c").value();
    for (uint64_t id = 0; id < 8; ++id) {
      ASSERT_TRUE(collection->upsert(std::vector<Point>{{id, {value, 1}, {}}}).has_value());
      if (id == 3 || id == 5) {
        ASSERT_TRUE(database->checkpoint().ok());
      }
    }
  }

  /// What the store in `dir` holds, or why it cannot be opened.
  Result<Content> content_of(SimFileSystem& files, const std::string& dir) const {
    ASSIGN_OR_RETURN(const auto database, open_database(options_for(dir), {&files, &clock_}));
    if (!database->health().quarantined.empty()) return corruption("a collection is quarantined");
    Content out;
    for (const CollectionInfo& info : database->list_collections()) {
      ASSIGN_OR_RETURN(const auto collection, database->collection(info.name));
      ListRequest request;
      request.limit = 1000;
      request.include_values = true;
      ASSIGN_OR_RETURN(const ListPage page, collection->list(request));
      for (const Point& point : page.points) out[info.name][point.id.to_string()] = point.values;
    }
    return out;
  }

  /// Runs `work` on `files`, and `look` at images before each of its mutations. Depth 1 is every
  /// mutation and every kind; below that, `share` of them.
  using Look = std::function<void(SimFileSystem& image, const std::string& where)>;
  void cut_everywhere(SimFileSystem& files, const std::string& where, double share,
                      const std::function<Status(SimFileSystem&)>& work, const Look& look) {
    files.set_hook([&](const FileCall& call) -> std::optional<FileFault> {
      if (!is_mutation(call.op) || HasFatalFailure()) return std::nullopt;
      for (size_t kind = 0; kind < kCrashKindsCount; ++kind) {
        if (!rng_.chance(share * kShareCut)) continue;
        ++images_;
        const std::string place = where + " | before " + std::string(file_op_name(call.op)) + " " +
                                  call.path + " kind " + std::to_string(kind);
        look(*files.crash_image(static_cast<CrashKind>(kind), rng_.next()), place);
        if (HasFatalFailure()) break;
      }
      return std::nullopt;
    });
    const Status done = work(files);
    files.set_hook({});
    ASSERT_TRUE(done.ok()) << where << ": " << done.to_string();
  }

  // ---- Backup ----

  /// Every backup there can be restored to what it held, and there are at least `count_min`.
  void check_backups(SimFileSystem& files, size_t count_min, const std::string& where) {
    const auto list = list_store_backups_in(&files, kBackups);
    ASSERT_TRUE(list.has_value()) << where << ": " << list.status().to_string();
    ASSERT_GE(list->size(), count_min) << where << ": an earlier backup is gone";
    ASSERT_LE(list->size(), contents_.size()) << where;
    for (const BackupReport& backup : *list) {
      RestoreOptions options;
      options.number = backup.number;
      options.replace = true;
      const auto restored = restore_store_in(&files, kBackups, kScratch, options);
      ASSERT_TRUE(restored.has_value())
          << where << ": backup " << backup.number << ": " << restored.status().to_string();
      const auto content = content_of(files, kScratch);
      ASSERT_TRUE(content.has_value()) << where << ": " << content.status().to_string();
      ASSERT_EQ(*content, contents_[backup.number - 1]) << where << ": backup " << backup.number;
    }
  }

  Status backup(SimFileSystem& files, uint64_t keep = 0) const {
    BackupOptions options;
    options.keep = keep;
    return backup_store_in(&files, kStore, kBackups, options).status();
  }
  /// The names in the backup directory that no backup there needs.
  static std::vector<std::string> leftovers(SimFileSystem& files) {
    const std::string dir = kBackups;
    std::set<std::string> needed = {"LOCK"};
    for (const uint64_t number : list_backups(&files, dir).value()) {
      needed.insert("BACKUP-" + hex16(number));
      const Backup backup = read_backup(&files, dir, number).value();
      const std::string store = hex16(backup.manifest.store_id);
      for (const ManifestSegment& segment : backup.manifest.segments) {
        needed.insert("seg-" + store + "-" + hex16(segment.id) + "-" +
                      hex16(segment.trailer_checksum) + ".zst");
      }
      for (const BackupFile& file : backup.files) {
        if (file.kind != BackupKind::kLog) continue;
        needed.insert("log-" + hex16(number) + "-" + hex16(file.id) + ".zst");
      }
    }
    std::vector<std::string> out = files.list(dir).value();
    std::erase_if(out, [&](const std::string& name) { return needed.contains(name); });
    return out;
  }

  // ---- Restore ----

  /// The store is the old one or the restored one.
  void check_store(SimFileSystem& files, const std::string& where) {
    const auto content = content_of(files, kStore);
    ASSERT_TRUE(content.has_value()) << where << ": " << content.status().to_string();
    ASSERT_TRUE(*content == old_ || *content == contents_[0]) << where << ": a mixture";
    const auto again = content_of(files, kStore);
    ASSERT_TRUE(again.has_value() && *again == *content) << where << ": opened again it differs";
  }
  /// The store that was replaced is not gone, wherever it was put.
  void check_set_aside(SimFileSystem& files, const std::string& where) {
    for (const std::string& name : files.list(".").value()) {
      if (!name.starts_with("store.replaced")) continue;
      const auto content = content_of(files, name);
      if (content.has_value() && *content == old_) return;
    }
    FAIL() << where << ": the store that was replaced is gone";
  }
  Status restore(SimFileSystem& files) const {
    RestoreOptions options;
    options.replace = true;
    options.number = 1;
    return restore_store_in(&files, kBackups, kStore, options).status();
  }

  SimFileSystem files_;
  ManualClock clock_;
  Rng rng_{first_seed()};
  uint64_t images_ = 0;
  std::vector<Content> contents_;  // of the backups, by number - 1
  Content old_;                    // of the store that a restore replaces
};

TEST_F(BackupCrashTest, BackupLeavesTheEarlierOnesOrOneMore) {
  fill(1);
  contents_.push_back(content_of(files_, kStore).value());
  ASSERT_TRUE(backup(files_).ok());
  fill(2);
  contents_.push_back(content_of(files_, kStore).value());
  const auto work = [this](SimFileSystem& files) { return backup(files); };
  cut_everywhere(files_, "backup", 1, work, [&](SimFileSystem& image, const std::string& where) {
    // What an operator does next is another backup, with the power going again meanwhile.
    const size_t before = list_store_backups_in(&image, kBackups).value().size();
    check_backups(image, 1, where);
    contents_.push_back(contents_.back());  // should the first have been complete already
    cut_everywhere(image, where, depth_two_share(), work,
                   [&](SimFileSystem& second, const std::string& place) {
                     check_backups(second, before, place);
                   });
    check_backups(image, before + 1, where + ", again");
    contents_.pop_back();
  });
  check_backups(files_, 2, "at the end");
  RecordProperty("images", static_cast<int>(images_));
  EXPECT_GT(images_, kImagesMin);
}

// The second and the third of three backups stay, whole, wherever the power goes while the third is
// made and the first removed; and the next backup removes what was left lying about.
TEST_F(BackupCrashTest, RemovingOlderBackupsLeavesTheOthersWhole) {
  constexpr uint64_t kKeep = 2;
  const auto add = [this](float value) {
    fill(value);
    contents_.push_back(content_of(files_, kStore).value());
  };
  for (const float value : {1.0F, 2.0F}) {
    add(value);
    ASSERT_TRUE(backup(files_).ok());
    // All that the next one holds is sealed anew, so that files of this one go with it.
    const auto database = open_database(options_for(kStore), {&files_, &clock_}).value();
    ASSERT_TRUE(database->collection("c").value()->optimize().ok());
  }
  add(3);
  const auto work = [this](SimFileSystem& files) { return backup(files, kKeep); };
  cut_everywhere(files_, "keep", 1, work, [&](SimFileSystem& image, const std::string& where) {
    check_backups(image, kKeep, where);
    contents_.push_back(contents_.back());  // should the third have been complete already
    cut_everywhere(image, where, depth_two_share(), work,
                   [&](SimFileSystem& second, const std::string& place) {
                     check_backups(second, kKeep, place);
                   });
    check_backups(image, kKeep, where + ", again");
    ASSERT_EQ(list_backups(&image, kBackups)->size(), kKeep) << where;
    ASSERT_EQ(leftovers(image), std::vector<std::string>()) << where;
    contents_.pop_back();
  });
  EXPECT_EQ(list_backups(&files_, kBackups).value(), (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(leftovers(files_), std::vector<std::string>());
  check_backups(files_, kKeep, "at the end");
  RecordProperty("images", static_cast<int>(images_));
  EXPECT_GT(images_, kImagesMin);
}

TEST_F(BackupCrashTest, RestoreLeavesTheOldStoreOrTheNewOne) {
  fill(1);
  contents_.push_back(content_of(files_, kStore).value());
  ASSERT_TRUE(backup(files_).ok());
  fill(2);
  old_ = content_of(files_, kStore).value();
  const auto work = [this](SimFileSystem& files) { return restore(files); };
  const auto start = [this](SimFileSystem& files) { return content_of(files, kStore).status(); };
  cut_everywhere(files_, "restore", 1, work, [&](SimFileSystem& image, const std::string& where) {
    // Next the server starts, with the power going again; or the restore is run again.
    const auto other = image.crash_image(CrashKind::kKeepAll, 0);
    cut_everywhere(
        image, where + ", start", depth_two_share(), start,
        [this](SimFileSystem& second, const std::string& place) { check_store(second, place); });
    check_store(image, where);
    cut_everywhere(
        *other, where + ", again", depth_two_share(), work,
        [this](SimFileSystem& second, const std::string& place) { check_store(second, place); });
    const auto content = content_of(*other, kStore);
    ASSERT_TRUE(content.has_value() && *content == contents_[0]) << where << ", again";
    check_set_aside(*other, where);
    check_backups(*other, 1, where);
  });
  EXPECT_EQ(content_of(files_, kStore).value(), contents_[0]);
  EXPECT_EQ(content_of(files_, "store.replaced").value(), old_);
  RecordProperty("images", static_cast<int>(images_));
  EXPECT_GT(images_, kImagesMin);
}

// Into a place where nothing was: nothing, or the whole store.
TEST_F(BackupCrashTest, RestoreIntoNothingIsAllOrNothing) {
  fill(1);
  contents_.push_back(content_of(files_, kStore).value());
  ASSERT_TRUE(backup(files_).ok());
  const auto work = [](SimFileSystem& files) {
    return restore_store_in(&files, kBackups, "fresh").status();
  };
  cut_everywhere(files_, "restore", 1, work, [&](SimFileSystem& image, const std::string& where) {
    if (image.list("fresh").has_value()) {
      const auto content = content_of(image, "fresh");
      ASSERT_TRUE(content.has_value()) << where << ": " << content.status().to_string();
      ASSERT_EQ(*content, contents_[0]) << where;
    } else {
      const Status again = work(image);
      ASSERT_TRUE(again.ok()) << where << ": " << again.to_string();
      ASSERT_EQ(content_of(image, "fresh").value(), contents_[0]) << where;
    }
  });
}

// A backup of an open database, and the power going while it runs and writes go on.
TEST_F(BackupCrashTest, OnlineBackupLeavesTheStoreAndTheEarlierOnes) {
  fill(1);
  contents_.push_back(content_of(files_, kStore).value());
  ASSERT_TRUE(backup(files_).ok());
  contents_.push_back(contents_[0]);
  const auto work = [this](SimFileSystem& files) -> Status {
    ASSIGN_OR_RETURN(const auto database, open_database(options_for(kStore), {&files, &clock_}));
    const auto collection = database->collection("c").value();
    return database
        ->backup(
            kBackups, {},
            [&](uint64_t, uint64_t) {
              // The same values, sealed anew: the store stays what it is.
              for (uint64_t id = 0; id < 4; ++id) {
                EXPECT_TRUE(collection->upsert(std::vector<Point>{{id, {1, 1}, {}}}).has_value());
              }
              EXPECT_TRUE(collection->optimize().ok());
              return true;
            })
        .status();
  };
  cut_everywhere(files_, "online", 1, work, [&](SimFileSystem& image, const std::string& where) {
    const auto content = content_of(image, kStore);
    ASSERT_TRUE(content.has_value()) << where << ": " << content.status().to_string();
    ASSERT_EQ(*content, contents_[0]) << where;
    check_backups(image, 1, where);
  });
  check_backups(files_, 2, "at the end");
}

}  // namespace
}  // namespace aionbd::backup_crash_test
