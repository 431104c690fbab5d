// Files that are cut while they are mapped: the requests that meet it fail, nothing wrong is
// answered, other collections serve, the process lives.
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/test_store.h"

namespace aionbd {
namespace {

class UnreadableFileTest : public StoreTest {
 protected:
  /// Everything that is asked of "docs": text answers that must be the same, or errors.
  struct Question {
    std::string name;
    std::function<Result<std::string>(Collection&)> ask;
  };

  static std::string text_of(const std::vector<Hit>& hits) {
    std::string out;
    for (const Hit& hit : hits) out += hit.id.to_string() + " " + std::to_string(hit.score) + "\n";
    return out;
  }

  static Filter filter() {
    Filter out;
    Clause clause;
    clause.field = "n";
    InRange range;
    range.gte = Value(int64_t{300});
    clause.test = range;
    out.must.push_back(std::move(clause));
    return out;
  }

  static Result<std::string> ask_search(Collection& collection, SearchMode mode, bool filtered) {
    static const std::vector<float> query(kTestDimension, 0.31F);
    const Filter wanted = filter();
    SearchRequest request;
    request.query = query;
    request.limit = 20;
    request.mode = mode;
    if (mode == SearchMode::kAuto) request.target_recall = 0.999;
    if (filtered) request.filter = &wanted;
    ASSIGN_OR_RETURN(const SearchResult result, collection.search(request));
    // How many of the neighbours a walk finds is its own affair: the hits must be true ones.
    if (result.mode != SearchMode::kExact) {
      for (const Hit& hit : result.hits) {
        GetOptions options;
        ASSIGN_OR_RETURN(const GetResult got, collection.get(std::vector{hit.id}, options));
        if (got.points.size() != 1) return std::string("a hit that is no point");
        float distance = 0;
        for (size_t k = 0; k < query.size(); ++k) {
          const float d = got.points[0].values[k] - query[k];
          distance += d * d;
        }
        if (std::abs(hit.score - std::sqrt(distance)) > 1e-3F &&
            std::abs(hit.score - distance) > 1e-3F) {
          return std::string("a hit with another score");
        }
      }
      return std::string("approximate");
    }
    return text_of(result.hits);
  }

  static std::vector<Question> questions() {
    return {
        {"exact", [](Collection& c) { return ask_search(c, SearchMode::kExact, false); }},
        {"exact filtered", [](Collection& c) { return ask_search(c, SearchMode::kExact, true); }},
        {"auto", [](Collection& c) { return ask_search(c, SearchMode::kAuto, false); }},
        {"auto filtered", [](Collection& c) { return ask_search(c, SearchMode::kAuto, true); }},
        {"count",
         [](Collection& c) -> Result<std::string> {
           const Filter wanted = filter();
           ASSIGN_OR_RETURN(const uint64_t n, c.count(&wanted));
           return std::to_string(n);
         }},
        {"list",
         [](Collection& c) -> Result<std::string> {
           ListRequest request;
           request.limit = 100000;
           request.include_payload = request.include_values = true;
           ASSIGN_OR_RETURN(const ListPage page, c.list(request));
           std::string out;
           for (const Point& point : page.points) {
             out += point.id.to_string() + " " + std::to_string(point.values[0]) + " " +
                    std::to_string(point.payload.size()) + "\n";
           }
           return out;
         }},
        {"remove nothing",
         [](Collection& c) -> Result<std::string> {
           ASSIGN_OR_RETURN(const uint64_t n,
                            c.remove(std::vector<PointId>{uint64_t{999999}, uint64_t{5}}));
           return std::to_string(n);
         }},
    };
  }

  std::string text_of_file(const std::string& name) {
    std::ifstream in(file(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }

  static bool is_refusal(Code code) {
    return code == Code::kCorruption || code == Code::kUnavailable || code == Code::kIoError;
  }

  /// Cuts one file to `left` bytes under a running database and asks everything, twice.
  void run(const std::string& name, uint64_t left, bool& quarantined) {
    SCOPED_TRACE(name + " cut to " + std::to_string(left));
    auto database = Database::open(options_for(dir_)).value();
    auto docs = database->collection("docs").value();
    std::vector<std::string> truth;
    for (const Question& question : questions()) {
      // The index is opened in the background.
      Result<std::string> answer = question.ask(*docs);
      ASSERT_TRUE(answer.has_value()) << answer.error().to_string();
      truth.push_back(*answer);
    }
    const uint64_t whole = std::filesystem::file_size(file(name));
    ASSERT_EQ(::truncate(file(name).c_str(), static_cast<off_t>(left)), 0);
    for (int round = 0; round < 2; ++round) {
      for (size_t i = 0; i < truth.size(); ++i) {
        const Question question = questions()[i];
        const Result<std::string> answer = question.ask(*docs);
        if (!answer) {
          EXPECT_TRUE(is_refusal(answer.error().code()))
              << question.name << ": " << answer.error().to_string();
        } else if (*answer != "approximate" && truth[i] != "approximate") {
          EXPECT_EQ(*answer, truth[i]) << question.name;
        }
      }
    }
    quarantined = !database->health().quarantined.empty();
    if (quarantined) {
      EXPECT_EQ(database->health().quarantined, std::vector<std::string>{"docs"});
      EXPECT_EQ(questions()[0].ask(*docs).error().code(), Code::kCorruption);
      EXPECT_EQ(docs->upsert(docs_point()).error().code(), Code::kCorruption);
    }
    EXPECT_EQ(database->collection("words").value()->count(nullptr).value(), 299u);
    EXPECT_TRUE(database->collection("late").value()->remove(std::vector<PointId>{"word 1"}));
    docs.reset();
    database.reset();
    ASSERT_GT(whole, left);
  }

  static std::vector<Point> docs_point() { return docs(1, 1, 0); }
};

TEST_F(UnreadableFileTest, ACutFileIsAnErrorAndNeverAWrongAnswer) {
  const std::vector<std::string> files = names(".seg");
  ASSERT_GE(files.size(), 4u) << "rows, rows, an index of vectors, one of fields, words";
  size_t quarantines = 0;
  const std::string keep = root_ + "/keep";
  std::filesystem::copy(dir_, keep);
  for (const std::string& name : files) {
    const uint64_t whole = std::filesystem::file_size(keep + "/" + name);
    for (const uint64_t left : {uint64_t{0}, whole / 2 / 4096 * 4096}) {
      std::filesystem::remove_all(dir_);
      std::filesystem::copy(keep, dir_);
      if (std::filesystem::file_size(keep + "/" + name) < 20000) continue;
      bool quarantined = false;
      run(name, left, quarantined);
      if (HasFatalFailure()) return;
      quarantines += quarantined ? 1 : 0;
    }
  }
  EXPECT_GE(quarantines, 2u) << "of the large segment of rows";
}

// What a merge cannot read it does not leave out: the collection stops, the others go on.
TEST_F(UnreadableFileTest, AMergeOfACutFileStopsItsCollectionOnly) {
  const std::string keep = root_ + "/keep";
  std::filesystem::copy(dir_, keep);
  for (const std::string& name : names(".seg")) {
    const uint64_t whole = std::filesystem::file_size(keep + "/" + name);
    if (text_of_file(name).find("row xxx") == std::string::npos) continue;  // not rows of "docs"
    for (uint64_t part = 0; part < (whole < 100000 ? 1 : 4); ++part) {      // ids, rows
      std::filesystem::remove_all(dir_);
      std::filesystem::copy(keep, dir_);
      auto database = Database::open(options_for(dir_)).value();
      const auto docs = database->collection("docs").value();
      const uint64_t left = whole * part / 8 / 4096 * 4096;
      SCOPED_TRACE(name + " cut to " + std::to_string(left));
      ASSERT_EQ(::truncate(file(name).c_str(), static_cast<off_t>(left)), 0);
      const Status done = docs->optimize();
      if (done.ok()) {
        EXPECT_TRUE(database->health().quarantined.empty());
        EXPECT_EQ(docs->count(nullptr).value(), kTestRows - 2);
      } else {
        EXPECT_TRUE(is_refusal(done.code())) << done.to_string();
        EXPECT_EQ(database->health().quarantined, std::vector<std::string>{"docs"});
        EXPECT_EQ(docs->upsert(docs_point()).error().code(), Code::kCorruption);
      }
      EXPECT_EQ(database->collection("late").value()->count(nullptr).value(), 20u);
      EXPECT_TRUE(database->collection("late").value()->remove(std::vector<PointId>{"word 1"}));
      EXPECT_TRUE(database->checkpoint().ok());
    }
  }
}

TEST_F(UnreadableFileTest, ACheckpointThatCannotReadWhatItCompactsGoesOnWithTheOthers) {
  std::string largest;  // of "words", which has no index: a checkpoint may compact it
  for (const std::string& name : names(".seg")) {
    const bool of_words = text_of_file(name).find("word 2") != std::string::npos;
    if (of_words) largest = name;
  }
  ASSERT_FALSE(largest.empty());
  auto database = Database::open(options_for(dir_)).value();
  const auto words = database->collection("words").value();
  std::vector<PointId> most;
  for (int i = 0; i < 280; ++i) most.push_back("word " + std::to_string(i));
  ASSERT_TRUE(words->remove(most));
  ASSERT_EQ(::truncate(file(largest).c_str(), 0), 0);
  const auto late = database->collection("late").value();
  ASSERT_TRUE(late->remove(std::vector<PointId>{"word 1"}));
  const Status done = database->checkpoint();
  EXPECT_TRUE(done.ok()) << done.to_string();
  EXPECT_EQ(database->health().quarantined, std::vector<std::string>{"words"});
  EXPECT_EQ(late->count(nullptr).value(), 19u);
}

}  // namespace
}  // namespace aionbd
