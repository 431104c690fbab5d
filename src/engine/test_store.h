// A small store with every kind of file, made through the library, and damage to put into it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "aionbd/aionbd.h"

namespace aionbd {

inline constexpr size_t kTestRows = 4600;  // enough for an index
inline constexpr uint32_t kTestDimension = 8;

/// Ids and payloads of the collections a test expects to find.
using StoreContent =
    std::map<std::string, std::map<std::string, std::pair<std::vector<float>, Payload>>>;

/// Each test gets a copy of one store: "docs" (u64 ids, payloads, a vector and a field index, some
/// rows replaced and deleted), "words" (string ids), "late" (in the log alone).
/// Thread safety: single owner.
class StoreTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!pristine().empty()) return;
    std::string name = (std::filesystem::temp_directory_path() / "aionbd_store_XXXXXX").string();
    pristine() = mkdtemp(name.data());
    fill(pristine() + "/store");
  }
  StoreTest() {
    std::string name = (std::filesystem::temp_directory_path() / "aionbd_store_XXXXXX").string();
    root_ = mkdtemp(name.data());
    dir_ = root_ + "/store";
    std::filesystem::copy(pristine() + "/store", dir_);
  }
  ~StoreTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }

  static std::string& pristine() {
    static std::string dir;
    return dir;
  }

  static std::vector<Point> docs(size_t first, size_t n, float shift) {
    std::vector<Point> out;
    for (size_t i = first; i < first + n; ++i) {
      std::vector<float> values(kTestDimension);
      for (size_t k = 0; k < values.size(); ++k) {
        values[k] = static_cast<float>((i * 7919 + k * 104729) % 1000) / 1000 + shift;
      }
      const Payload payload = {{"n", static_cast<int64_t>(i)},
                               {"text", "row " + std::string(60, 'x') + std::to_string(i)}};
      out.push_back({uint64_t{i}, std::move(values), payload});
    }
    return out;
  }

  static DatabaseOptions options_for(const std::string& dir) {
    DatabaseOptions options;
    options.data_dir = dir;
    options.search_threads = 1;
    options.checkpoint_interval = 1000000;
    options.index_build_cooldown = std::chrono::milliseconds(1);
    return options;
  }

  static void fill(const std::string& dir) {
    auto database = Database::open(options_for(dir)).value();
    CollectionOptions options;
    options.dimension = kTestDimension;
    options.metric = Metric::kL2;
    const auto collection = database->create_collection("docs", options).value();
    ASSERT_TRUE(collection->upsert(docs(0, kTestRows, 0)).has_value());
    SearchRequest search;
    const std::vector<float> query(kTestDimension, 0.5F);
    search.query = query;
    ASSERT_TRUE(collection->search(search).has_value());
    Filter filter;
    Clause clause;
    clause.field = "n";
    clause.test = EqualTo{Value(7)};
    filter.must.push_back(std::move(clause));
    ASSERT_TRUE(collection->count(&filter).has_value());
    ASSERT_TRUE(collection->optimize().ok());
    // A second segment, with kills on the first.
    ASSERT_TRUE(collection->upsert(docs(100, 50, 1)).has_value());
    ASSERT_TRUE(collection->remove(std::vector<PointId>{uint64_t{5}, uint64_t{6}}).has_value());
    options.dimension = 4;
    options.id_type = IdType::kString;
    const auto words = database->create_collection("words", options).value();
    std::vector<Point> points;
    for (int i = 0; i < 300; ++i) {
      points.push_back({"word " + std::to_string(i), {1, 2, 3, static_cast<float>(i)}, {}});
    }
    ASSERT_TRUE(words->upsert(points).has_value());
    ASSERT_TRUE(database->checkpoint().ok());
    // What only the log knows.
    const auto late = database->create_collection("late", options).value();
    for (int i = 0; i < 20; ++i) {
      ASSERT_TRUE(late->upsert(std::vector<Point>{points[static_cast<size_t>(i)]}).has_value());
    }
    ASSERT_TRUE(words->remove(std::vector<PointId>{"word 3"}).has_value());
  }

  /// Everything a database over `dir` answers.
  static StoreContent content_of(const std::string& dir) {
    StoreContent out;
    auto database = Database::open(options_for(dir)).value();
    for (const CollectionInfo& info : database->list_collections()) {
      auto& points = out[info.name];
      ListRequest request;
      request.limit = 100000;
      request.include_payload = request.include_values = true;
      const ListPage page = database->collection(info.name).value()->list(request).value();
      for (const Point& point : page.points) {
        points[point.id.to_string()] = {point.values, point.payload};
      }
    }
    return out;
  }

  std::string file(const std::string& name) const { return dir_ + "/" + name; }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    std::string bytes(static_cast<size_t>(in.tellg()), '\0');
    in.seekg(0).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }
  static void write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }
  static void flip(const std::string& path, uint64_t offset) {
    std::string bytes = read(path);
    ASSERT_LT(offset, bytes.size());
    bytes[offset] = static_cast<char>(bytes[offset] ^ 0x10);
    write(path, bytes);
  }
  std::vector<std::string> names(const std::string& suffix) const {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
      if (entry.path().filename().string().ends_with(suffix)) {
        out.push_back(entry.path().filename().string());
      }
    }
    std::sort(out.begin(), out.end());
    return out;
  }
  /// A digest of each file in `dir` but the lock and the reserve, to see that nothing changed.
  static std::map<std::string, size_t> bytes_of_dir(const std::string& dir) {
    std::map<std::string, size_t> out;
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
      const std::string name = entry.path().filename().string();
      if (name != "LOCK" && name != "RESERVE")
        out[name] = std::hash<std::string>()(read(entry.path().string()));
    }
    return out;
  }

  std::string root_;
  std::string dir_;
};

}  // namespace aionbd
