// Damage: what a medium, a copy or an operator can do to the bytes of a small, cleanly closed store
// and its backups. Each byte of each file is changed in turn, each file cut at each length, blocks
// of 512 bytes are zeroed, doubled, swapped and brought back from an older version, the rest of a
// file is zeroed. Each such store must be told from a good one. What may become of it:
//   same      nothing a reader sees has changed
//   refused   the start is refused as damaged, or the collection concerned is
//   tail      the end of the log is gone and cannot be missed: a whole state of the past is there
//   rebuilt   an index was dropped and built again, and all answers are right
// Never a crash, never an answer that is not the truth, and never an allocation that a number in
// the file asked for.
//
// AIONBD_DAMAGE_STORES sets the number of stores, AIONBD_DAMAGE_ALL_BITS=1 takes all 8 bits of each
// byte instead of one, AIONBD_DAMAGE_SEED the first seed.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/engine.h"
#include "engine/pinning.h"
#include "engine/store_verify.h"
#include "io/sim_file_system.h"
#include "storage/backup.h"
#include "storage/store_files.h"
#include "test/crash/allocation_watch.h"
#include "test/crash/recovered.h"
#include "test/long_runs.h"

namespace aionbd::damage_test {
namespace {

constexpr char kDir[] = "store";
constexpr char kBackups[] = "backups";
constexpr uint64_t kOperations = 60;
/// What a load of such a store may take: its files as maps, and a little.
constexpr uint64_t kLoadBytesMax = uint64_t{4} << 20;
constexpr uint64_t kBlock = 512;
constexpr uint64_t kSealBytes = 48;

// ---- What is done to a file ---------------------------------------------------------------------

struct Damage {
  std::string what;
  std::string content;
  bool is_flip = false;
};

std::string block_of(const std::string& content, uint64_t offset) {
  return offset < content.size() ? content.substr(offset, kBlock) : std::string();
}

/// Of so many bytes one is changed and of so many lengths one cut: sanitized runs look for what
/// happens inside, and the next byte goes through the same lines. Odd, to meet every byte of a
/// word.
constexpr size_t kStride = kSlowness == 1 ? 1 : 5;

/// Calls `visit` for each way to damage `content`. `older`: what the file, or one of its kind, held
/// before.
template <typename Visit>
void for_each_damage(const std::string& content, const std::string& older, Rng& rng,
                     const Visit& visit) {
  static const bool all_bits = number_from_environment("AIONBD_DAMAGE_ALL_BITS", 0) != 0;
  for (size_t i = 0; i < content.size(); i += kStride) {
    const uint64_t chosen = rng.below(8);
    for (uint64_t bit = 0; bit < 8; ++bit) {
      if (!all_bits && bit != chosen) continue;
      Damage damage{"byte " + std::to_string(i) + " bit " + std::to_string(bit), content, true};
      damage.content[i] = static_cast<char>(damage.content[i] ^ (1 << bit));
      visit(damage);
    }
  }
  for (size_t size = 0; size < content.size(); size += kStride) {
    visit(Damage{"cut at " + std::to_string(size), content.substr(0, size)});
  }
  for (size_t at = 0; at < content.size(); at += kBlock) {
    const std::string where = " at " + std::to_string(at);
    const std::string block = block_of(content, at);
    const std::string next = block_of(content, at + kBlock);
    const auto with = [&](size_t offset, const std::string& bytes) {
      std::string out = content;
      out.replace(offset, bytes.size(), bytes);
      return out;
    };
    visit(Damage{"zeroed block" + where, with(at, std::string(block.size(), '\0'))});
    visit(Damage{"zeros from" + where,
                 content.substr(0, at) + std::string(content.size() - at, '\0')});
    if (!next.empty()) {
      visit(Damage{"doubled block" + where, with(at + kBlock, block.substr(0, next.size()))});
      visit(Damage{"swapped block" + where,
                   with(at + kBlock, block.substr(0, next.size())).replace(at, next.size(), next)});
    }
    const std::string old = block_of(older, at).substr(0, block.size());
    visit(Damage{"older block" + where, with(at, old)});
  }
  visit(Damage{"longer by zeros", content + std::string(kBlock, '\0')});
  visit(Damage{"longer by itself", content + content});
  visit(Damage{"older version", older});
}

// ---- The small store ----------------------------------------------------------------------------

/// What became of the damaged stores.
struct Endings {
  uint64_t same = 0, refused = 0, tail = 0, rebuilt = 0;
  uint64_t peak_bytes = 0;

  uint64_t total() const { return same + refused + tail + rebuilt; }
  void print(const char* what) const {
    std::printf("  %s: %llu same, %llu refused, %llu tail, %llu rebuilt; at most %llu KiB taken\n",
                what, ull(same), ull(refused), ull(tail), ull(rebuilt), ull(peak_bytes / 1024));
    print_counted(total(), what);
  }
  static unsigned long long ull(uint64_t number) { return number; }
};

/// A store with several collections, sealed segments with kills, and records in the log.
struct SmallStore {
  SimFileSystem files;
  ManualClock clock;
  DatabaseOptions options;
  std::vector<ModelState> states{{}};
  std::map<std::string, std::string> older;  // by the kind of file: its name's last part

  explicit SmallStore(uint64_t seed) {
    Rng rng(seed);
    options = small_options(rng, kDir);
    options.checkpoint_interval = 16;
    options.index_warmup_on_boot = false;
    options.recall_audit = false;
    auto database = open_database(options, {&files, &clock}).value();
    for (uint64_t i = 0; i < kOperations; ++i) {
      const Operation operation = Operation::random(rng, states.back());
      EXPECT_TRUE(operation.apply(*database, states.back()).ok());
      states.push_back(operation.apply(states.back()));
      if (i % 20 == 10) {
        for (const std::string& name : names()) older[kind_of(name)] = content(name);
      }
    }
  }

  /// Without any sync, nothing in the log says that it was ever durable.
  bool ever_syncs() const {
    return options.durability.sync_on_write || options.durability.sync_every_n_writes > 0 ||
           options.durability.sync_interval.count() > 0;
  }
  std::vector<std::string> names() { return files.list(kDir).value(); }
  std::string content(const std::string& name) {
    return files.read(std::string(kDir) + "/" + name, 1 << 24).value();
  }
  static std::string kind_of(const std::string& name) {
    return name.substr(name.find_last_of('.') + 1);
  }
};

/// "" if what the database shows is the truth or a refusal; else what is wrong.
std::string lie(Database& database, const ModelState& state, bool* refused) {
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
      *refused = true;
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

/// Opens the damaged store. `tail_gone`: the damage took the end of the log, and the proof of it.
std::string check_damaged(const SmallStore& store, SimFileSystem& files, bool tail_gone,
                          Endings& endings) {
  DatabaseOptions options = store.options;
  uint64_t warnings = 0;
  options.log = [&](LogLevel level, std::string_view) { warnings += level == LogLevel::kWarning; };
  const auto database = open_database(options, {&files, &store.clock});
  if (!database) {
    ++endings.refused;
    return database.error().code() == Code::kCorruption ? "" : database.error().to_string();
  }
  bool refused = false;
  std::string found = lie(**database, store.states.back(), &refused);
  if (!found.empty() && tail_gone) {
    if (state_held(**database, store.states) < 0) return "the end of the log is no state: " + found;
    ++endings.tail;
    return "";
  }
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
  found = lie(**database, store.states.back(), &refused);
  ++(refused ? endings.refused : endings.same);
  return found;
}

void damage_every_file(uint64_t seed, Endings& endings) {
  SmallStore store(seed);
  Rng rng(seed);
  for (const std::string& name : store.names()) {
    const std::string content = store.content(name);
    if (content.empty()) continue;
    const bool is_log = name.starts_with("wal-");
    for_each_damage(
        content, store.older[SmallStore::kind_of(name)], rng, [&](const Damage& damage) {
          if (testing::Test::HasFatalFailure() || damage.content == content) return;
          const auto image = store.files.crash_image(CrashKind::kKeepAll, 1);
          image->overwrite(std::string(kDir) + "/" + name, damage.content);
          const bool tail_gone =
              is_log && (!store.ever_syncs() ||
                         (!damage.is_flip &&
                          (damage.content.size() < content.size() ||
                           damage.content.compare(content.size() - kSealBytes, kSealBytes, content,
                                                  content.size() - kSealBytes, kSealBytes) != 0)));
          const AllocationWatch watch;
          ASSERT_EQ(check_damaged(store, *image, tail_gone, endings), "")
              << name << ", " << damage.what << "; repeat with AIONBD_DAMAGE_SEED=" << seed;
          endings.peak_bytes = std::max(endings.peak_bytes, watch.peak_bytes());
          ASSERT_LT(watch.peak_bytes(), kLoadBytesMax) << name << ", " << damage.what;
        });
  }
}

TEST(DamageTest, EveryDamageToAStoreIsNoticedOrHarmless) {
  const uint64_t first = number_from_environment("AIONBD_DAMAGE_SEED", 3);
  const uint64_t stores = number_from_environment("AIONBD_DAMAGE_STORES", kSlowness == 1 ? 10 : 1);
  Endings endings;
  for (uint64_t seed = first; seed < first + stores && !HasFatalFailure(); ++seed) {
    damage_every_file(seed, endings);
  }
  endings.print("damaged stores loaded");
  EXPECT_GT(endings.total(), 5000u / kStride * stores);
}

// ---- Backups ------------------------------------------------------------------------------------

/// Adds a backup of the closed store to `kBackups` on its own disk.
void back_up(SmallStore& store) {
  const StoreListing listing = list_store(&store.files, kDir).value();
  BackupSource source;
  source.dir = kDir;
  source.manifest = read_manifest(&store.files, kDir).value();
  const LogScan scan = scan_log(&store.files, kDir, source.manifest.store_id, listing.logs,
                                source.manifest.replay_after, source.manifest.durable_lsn)
                           .value();
  source.logs = scan.files;
  source.logs.back().bytes = scan.end_offset;
  source.last_lsn = scan.last_lsn;
  ASSERT_TRUE(write_backup(&store.files, source, kBackups, 3, 0, {}).has_value());
}

std::map<std::string, std::string> contents(SimFileSystem& files, const std::string& dir) {
  std::map<std::string, std::string> out;
  for (const std::string& name : files.list(dir).value()) {
    out[name] = files.read(dir + "/" + name, 1 << 24).value();
  }
  return out;
}

/// Restores from a damaged backup. "" if it is refused, or what came back is what was there.
std::string check_damaged_backup(SimFileSystem& files,
                                 const std::map<std::string, std::string>& truth,
                                 Endings& endings) {
  const auto backup = read_backup(&files, kBackups, 1);
  Status done = backup.status();
  if (done.ok()) {
    EXPECT_TRUE(files.make_dirs("restored").ok());
    done = unpack_backup(&files, kBackups, *backup, "restored", {});
  }
  if (!done.ok()) {
    ++endings.refused;
    const bool named = done.code() == Code::kCorruption || done.code() == Code::kNotFound;
    return named ? "" : done.to_string();
  }
  ++endings.same;
  return contents(files, "restored") == truth ? "" : "something else came back";
}

TEST(DamageTest, EveryDamageToABackupIsNoticedOrHarmless) {
  const uint64_t seed = number_from_environment("AIONBD_DAMAGE_SEED", 3);
  SmallStore store(seed);
  back_up(store);
  std::map<std::string, std::string> truth;
  {
    const auto image = store.files.crash_image(CrashKind::kKeepAll, 1);
    ASSERT_TRUE(image->make_dirs("restored").ok());
    ASSERT_TRUE(unpack_backup(image.get(), kBackups, read_backup(image.get(), kBackups, 1).value(),
                              "restored", {})
                    .ok());
    truth = contents(*image, "restored");
  }
  Rng rng(seed);
  Endings endings;
  for (const auto& entry : contents(store.files, kBackups)) {
    const std::string& name = entry.first;
    const std::string& content = entry.second;
    for_each_damage(content, "", rng, [&](const Damage& damage) {
      if (HasFatalFailure() || damage.content == content) return;
      const auto image = store.files.crash_image(CrashKind::kKeepAll, 1);
      image->overwrite(std::string(kBackups) + "/" + name, damage.content);
      const AllocationWatch watch;
      ASSERT_EQ(check_damaged_backup(*image, truth, endings), "") << name << ", " << damage.what;
      endings.peak_bytes = std::max(endings.peak_bytes, watch.peak_bytes());
      ASSERT_LT(watch.peak_bytes(), 2 * kBackupChunkBytes + kLoadBytesMax)
          << name << ", " << damage.what;
    });
  }
  endings.print("damaged backups restored");
  EXPECT_GT(endings.refused, 1000u / kStride);
}

// ---- Indexes ------------------------------------------------------------------------------------

/// A collection with a vector and a field index: too large to change each byte in turn and open.
struct IndexedStore : SmallStore {
  std::vector<std::string> index_names;

  IndexedStore() : SmallStore(1) {
    options.checkpoint_interval = 1000000;
    auto database = open_database(options, {&files, &clock}).value();
    run(*database, Operation::create("indexed", {.dimension = 2, .metric = Metric::kL2}));
    std::vector<Point> points;
    for (uint64_t id = 0; id < kIndexRowsMin; ++id) {
      const auto x = static_cast<float>(id * 7919 % 1009);
      const auto y = static_cast<float>(id * 104729 % 499);
      points.push_back({id, {x, y}, {{"group", static_cast<int64_t>(id % 4)}}});
    }
    run(*database, Operation::upsert("indexed", points));
    run(*database, Operation::checkpoint());
    const std::vector<std::string> before = names();
    const auto collection = database->collection("indexed").value();
    Filter filter;
    filter.must.push_back({"group", EqualTo{int64_t{1}}, nullptr});
    EXPECT_TRUE(collection->count(&filter).has_value());
    run(*database, Operation::optimize("indexed"));
    database.reset();
    for (const std::string& name : names()) {
      const bool fresh = std::find(before.begin(), before.end(), name) == before.end();
      if (fresh && name.ends_with(".seg")) index_names.push_back(name);
    }
  }
  void run(Database& database, const Operation& operation) {
    EXPECT_TRUE(operation.apply(database, states.back()).ok()) << operation.describe();
    states.push_back(operation.apply(states.back()));
  }
};

/// Opens a store with a damaged index: it answers right, and right again once it is rebuilt.
std::string check_damaged_index(const IndexedStore& store, SimFileSystem& files) {
  uint64_t dropped = 0;
  DatabaseOptions options = store.options;
  options.log = [&](LogLevel, std::string_view line) {
    dropped += line.find("dropped and built again") != std::string_view::npos;
  };
  const auto database = open_database(options, {&files, &store.clock});
  if (!database) return "does not open: " + database.error().to_string();
  Rng rng(1);
  std::string wrong = difference(**database, store.states.back(), rng);
  if (!wrong.empty()) return "before the index is opened: " + wrong;
  const Status built = (*database)->collection("indexed").value()->optimize();
  if (!built.ok()) return "rebuild: " + built.to_string();
  if (dropped == 0) return "the damaged index was not dropped";
  wrong = difference(**database, store.states.back(), rng);
  return wrong.empty() ? "" : "after the rebuild: " + wrong;
}

TEST(DamageTest, DamagedIndexesAreFoundAndBuiltAgain) {
  IndexedStore store;
  ASSERT_EQ(store.index_names.size(), 2u);
  const uint64_t flips = number_from_environment("AIONBD_DAMAGE_INDEX_FLIPS", 600 / kSlowness);
  const uint64_t rebuilds =
      number_from_environment("AIONBD_DAMAGE_INDEX_REBUILDS", kSlowness == 1 ? 3 : 1);
  Rng rng(number_from_environment("AIONBD_DAMAGE_SEED", 3));
  Endings endings;
  for (const std::string& name : store.index_names) {
    const std::string content = store.content(name);
    for (uint64_t i = 0; i < flips; ++i) {
      std::string damaged = content;
      // Half of them where structure is: the ends of the file.
      const uint64_t span =
          rng.chance(0.5) ? content.size() : std::min<uint64_t>(2048, content.size());
      const size_t at = span == content.size() || rng.chance(0.5)
                            ? rng.below(span)
                            : content.size() - 1 - rng.below(span);
      if (rng.chance(0.1)) {
        damaged.replace(at, std::string::npos, content.size() - at, '\0');  // a zeroed suffix
      } else {
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << rng.below(8)));
      }
      if (damaged == content) continue;
      const auto image = store.files.crash_image(CrashKind::kKeepAll, 1);
      image->overwrite(std::string(kDir) + "/" + name, damaged);
      const AllocationWatch watch;
      const auto report = verify_store_in(image.get(), kDir);
      ASSERT_TRUE(report.has_value()) << report.error().to_string();
      ASSERT_FALSE(report->clean()) << name << " changed at " << at << " and nobody noticed";
      endings.peak_bytes = std::max(endings.peak_bytes, watch.peak_bytes());
      ASSERT_LT(watch.peak_bytes(), 2 * kLoadBytesMax) << name << " at " << at;
      if (i >= rebuilds) {
        ++endings.refused;
        continue;
      }
      ASSERT_EQ(check_damaged_index(store, *image), "") << name << " changed at " << at;
      ++endings.rebuilt;
    }
  }
  endings.print("damaged indexes loaded");
}

}  // namespace
}  // namespace aionbd::damage_test
