#include "cli/importer.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <map>

#include "base/mutex.h"
#include "cli/exporter.h"
#include "cli/fake_server.h"
#include "cli/import_state.h"
#include "cli/test_files.h"

namespace aionbd {
namespace {

/// The part of an AIONBD server an import and an export meet, with limits a test can set.
/// Thread safety: safe.
class FakeDatabase {
 public:
  FakeDatabase()
      : server([this](const FakeServer::Request& request) { return answer(request); },
               [this](const FakeServer::Request&, size_t length, FakeServer::Answer* out) {
                 if (length <= body_bytes_max) return false;
                 ++too_large;
                 *out = error(413, "payload_too_large", "the body is too large");
                 return true;
               }) {}

  FakeServer::Answer answer(const FakeServer::Request& request) {
    const MutexLock lock(mutex);
    if (failures_left > 0) {
      --failures_left;
      return error(503, "not_ready", "starting");
    }
    if (request.target == "/collections") return create(request.body);
    if (request.target.ends_with("/points/scroll")) return scroll(request.body);
    if (request.target.ends_with("/points")) return upsert(request.body);
    if (dimension == 0) return error(404, "not_found", "no such collection");
    return ok("{\"name\":\"c\",\"dimension\":" + std::to_string(dimension) +
              ",\"strict_finite\":true,\"point_count\":" + std::to_string(points.size()) +
              ",\"id_type\":\"" + id_type + "\"}");
  }

  static FakeServer::Answer ok(std::string body) {
    FakeServer::Answer answer;
    answer.body = std::move(body);
    return answer;
  }
  static FakeServer::Answer error(int status, const std::string& code, const std::string& message) {
    FakeServer::Answer answer;
    answer.status = status;
    answer.body = R"({"code":")" + code + R"(","message":")" + message + "\"}";
    return answer;
  }

  FakeServer::Answer create(const std::string& body) REQUIRES(mutex) {
    created_with = body;
    simdjson::dom::parser parser;
    const simdjson::dom::element root = parser.parse(body);
    dimension = root["dimension"].get_uint64();
    std::string_view type;
    if (root["id_type"].get(type) == simdjson::SUCCESS) id_type = type;
    return ok("{}");
  }

  FakeServer::Answer upsert(const std::string& body) REQUIRES(mutex) {
    if (upserts_until_gone == 0) return error(500, "internal", "gone");
    if (upserts_until_gone > 0) --upserts_until_gone;
    ++upserts;
    simdjson::dom::parser parser;
    simdjson::dom::element root;
    if (parser.parse(body).get(root) != simdjson::SUCCESS)
      return error(400, "invalid_argument", "JSON");
    const simdjson::dom::array list = root["points"].get_array();
    if (list.size() > points_max) return error(400, "invalid_argument", "too many points");
    std::map<std::string, std::string> batch;
    for (const auto point : list) {
      const simdjson::dom::array values = point["values"].get_array();
      if (values.size() != dimension) return error(400, "invalid_argument", "wrong dimension");
      batch[simdjson::minify(point["id"].value())] = simdjson::minify(point);
    }
    size_t created = 0;
    for (const auto& [id, point] : batch) created += points.count(id) == 0;
    const size_t updated = batch.size() - created;
    for (auto& [id, point] : batch) points[id] = point;
    return ok("{\"created\":" + std::to_string(created) +
              ",\"updated\":" + std::to_string(updated) + ",\"results\":[]}");
  }

  FakeServer::Answer scroll(const std::string& body) REQUIRES(mutex) {
    simdjson::dom::parser parser;
    const simdjson::dom::element root = parser.parse(body);
    const uint64_t limit = root["limit"].get_uint64();
    if (limit > page_max) return error(400, "invalid_argument", "limit");
    std::string_view cursor;
    auto at = points.begin();
    if (root["cursor"].get(cursor) == simdjson::SUCCESS)
      at = points.upper_bound(std::string(cursor));
    std::string out = "{\"points\":[";
    std::string last;
    for (uint64_t i = 0; i < limit && at != points.end(); ++i, ++at) {
      if (i > 0) out += ',';
      out += at->second;
      last = at->first;
    }
    out += "],\"next_cursor\":";
    out += at == points.end() ? "null" : "\"" + last + "\"";
    return ok(out + "}");
  }

  Mutex mutex;
  uint64_t dimension GUARDED_BY(mutex) = 0;
  std::string id_type GUARDED_BY(mutex) = "u64";
  std::string created_with GUARDED_BY(mutex);
  std::map<std::string, std::string> points GUARDED_BY(mutex);
  int failures_left GUARDED_BY(mutex) = 0;
  int upserts_until_gone GUARDED_BY(mutex) = -1;
  int upserts GUARDED_BY(mutex) = 0;
  size_t points_max = 256;
  size_t page_max = 1000;
  std::atomic<size_t> body_bytes_max{size_t{16} << 20};
  std::atomic<int> too_large{0};
  FakeServer server;  // last: it calls into the rest
};

class ImporterTest : public TestFiles {
 protected:
  ImportOptions options(const std::string& name) {
    ImportOptions options;
    options.path = path(name);
    options.collection = "c";
    options.client.url = *parse_server_url(database.server.url());
    options.client.retry_for = std::chrono::milliseconds(2000);
    options.batch_rows = 16;
    options.connections = 3;
    return options;
  }
  Result<ImportSummary> run(const ImportOptions& options) {
    Progress progress(system_clock_source(), Progress::Style::kQuiet);
    return run_import(posix_file_system(), options, stop, progress);
  }
  std::string rows(int from, int to) {
    std::string text;
    for (int i = from; i < to; ++i) {
      text += "{\"id\":" + std::to_string(i) + ",\"values\":[" + std::to_string(i) +
              ",0.5],\"payload\":{\"n\":" + std::to_string(i) + "}}\n";
    }
    return text;
  }
  size_t points_count() {
    const MutexLock lock(database.mutex);
    return database.points.size();
  }

  std::atomic<bool> stop{false};
  FakeDatabase database;
};

TEST_F(ImporterTest, EveryRowArrivesAsItIs) {
  write("a.ndjson", rows(0, 1000));
  const auto summary = run(options("a.ndjson"));
  ASSERT_TRUE(summary.has_value()) << summary.error().to_string();
  EXPECT_EQ(summary->rows, 1000U);
  EXPECT_EQ(summary->created, 1000U);
  EXPECT_EQ(summary->refused, 0U);
  EXPECT_EQ(points_count(), 1000U);
  const MutexLock lock(database.mutex);
  EXPECT_EQ(database.points["7"], R"({"id":7,"values":[7,0.5],"payload":{"n":7}})");
  EXPECT_EQ(database.created_with, R"({"name":"c","dimension":2})");
  EXPECT_FALSE(exists("a.ndjson.import-state"));
  EXPECT_FALSE(exists("a.ndjson.refused.ndjson"));
}

TEST_F(ImporterTest, NumbersWithLabelsAndAMetric) {
  const std::string axes("\0\0\x08\2\0\0\0\3\0\0\0\2", 12);
  write("x.idx", axes + std::string("\0\1\2\3\4\5", 6));
  write("y.idx", std::string("\0\0\x08\1\0\0\0\3", 8) + std::string("\7\x08\x09"));
  ImportOptions with = options("x.idx");
  with.labels_path = path("y.idx");
  with.start_id = 100;
  with.metric = Metric::kL2;
  const auto summary = run(with);
  ASSERT_TRUE(summary.has_value()) << summary.error().to_string();
  const MutexLock lock(database.mutex);
  EXPECT_EQ(database.points["102"], R"({"id":102,"values":[4,5],"payload":{"label":9}})");
  EXPECT_EQ(database.created_with, R"({"name":"c","dimension":2,"metric":"l2"})");
}

TEST_F(ImporterTest, BadRowsAreNamedAndTheRestGoesIn) {
  std::string text = rows(0, 50);
  text += "not json\n";                        // line 51
  text += rows(51, 99);                        //
  text += "{\"id\":99,\"values\":[1,2,3]}\n";  // line 100: only the server can tell
  text += rows(100, 300);
  write("a.ndjson", text);
  const auto summary = run(options("a.ndjson"));
  ASSERT_TRUE(summary.has_value());
  EXPECT_EQ(summary->rows, 298U);
  EXPECT_EQ(summary->refused, 2U);
  EXPECT_EQ(points_count(), 298U);
  const std::string refused = read_bytes("a.ndjson.refused.ndjson");
  EXPECT_NE(refused.find("{\"row\":51,\"reason\":\"not valid JSON"), std::string::npos) << refused;
  EXPECT_NE(refused.find("{\"row\":100,\"reason\":\"wrong dimension\"}"), std::string::npos)
      << refused;
}

TEST_F(ImporterTest, LearnsTheServersLimits) {
  database.points_max = 5;
  write("a.ndjson", rows(0, 400));
  ImportOptions wide = options("a.ndjson");
  wide.batch_rows = 64;
  const auto summary = run(wide);
  ASSERT_TRUE(summary.has_value()) << summary.error().to_string();
  EXPECT_EQ(points_count(), 400U);
  EXPECT_EQ(summary->refused, 0U);
  const MutexLock lock(database.mutex);
  EXPECT_LT(database.upserts, 250) << "the limit was asked for again and again";
}

TEST_F(ImporterTest, LearnsTheBodyLimit) {
  database.body_bytes_max = 700;
  write("a.ndjson", rows(0, 400));
  const auto summary = run(options("a.ndjson"));
  ASSERT_TRUE(summary.has_value()) << summary.error().to_string();
  EXPECT_EQ(points_count(), 400U);
  EXPECT_LE(database.too_large, 8);
}

TEST_F(ImporterTest, ARowTooLargeForTheServerIsRefused) {
  database.body_bytes_max = 500;
  write("a.ndjson", rows(0, 20) + "{\"id\":20,\"values\":[1,2],\"payload\":{\"t\":\"" +
                        std::string(600, 'x') + "\"}}\n" + rows(21, 40));
  const auto summary = run(options("a.ndjson"));
  ASSERT_TRUE(summary.has_value()) << summary.error().to_string();
  EXPECT_EQ(summary->refused, 1U);
  EXPECT_EQ(points_count(), 39U);
}

TEST_F(ImporterTest, NothingRightAtTheStartIsAnError) {
  {
    const MutexLock lock(database.mutex);
    database.dimension = 3;
  }
  write("a.ndjson", rows(0, 100000));
  const auto summary = run(options("a.ndjson"));
  ASSERT_FALSE(summary.has_value());
  EXPECT_EQ(summary.error().code(), Code::kInvalidArgument);
  EXPECT_NE(summary.error().message().find("wrong dimension"), std::string::npos);
}

TEST_F(ImporterTest, OtherDimensionOrMissingCollectionIsSaidBeforeAnythingIsSent) {
  write("x.idx", std::string("\0\0\x08\2\0\0\0\3\0\0\0\2\0\1\2\3\4\5", 18));
  ImportOptions strict = options("x.idx");
  strict.create = false;
  EXPECT_EQ(run(strict).error().code(), Code::kNotFound);
  {
    const MutexLock lock(database.mutex);
    database.dimension = 3;
  }
  EXPECT_EQ(run(strict).error().code(), Code::kInvalidArgument);
  const MutexLock lock(database.mutex);
  EXPECT_EQ(database.upserts, 0);
}

TEST_F(ImporterTest, WaitsForAServerThatStarts) {
  {
    const MutexLock lock(database.mutex);
    database.failures_left = 3;
  }
  write("a.ndjson", rows(0, 10));
  EXPECT_TRUE(run(options("a.ndjson")).has_value());
  EXPECT_EQ(points_count(), 10U);
}

TEST_F(ImporterTest, ResumesWhereItStopped) {
  write("a.ndjson", rows(0, 1000));
  {
    const MutexLock lock(database.mutex);
    database.upserts_until_gone = 20;
  }
  ImportOptions once = options("a.ndjson");
  once.connections = 1;  // so that it is known which batches got through
  EXPECT_EQ(run(once).error().code(), Code::kInternal);
  const auto state = load_import_state(posix_file_system(), path("a.ndjson.import-state"));
  ASSERT_TRUE(state.has_value() && state->has_value());
  EXPECT_EQ((*state)->rows_done, 20 * once.batch_rows);
  {
    const MutexLock lock(database.mutex);
    database.upserts_until_gone = -1;
  }
  ImportOptions again = options("a.ndjson");
  again.resume = true;
  const auto summary = run(again);
  ASSERT_TRUE(summary.has_value()) << summary.error().to_string();
  EXPECT_EQ(summary->rows_skipped, (*state)->rows_done);
  EXPECT_EQ(summary->rows, 1000 - summary->rows_skipped);
  EXPECT_EQ(points_count(), 1000U);
  EXPECT_FALSE(exists("a.ndjson.import-state"));
}

TEST_F(ImporterTest, ResumeRefusesAnotherFileOrTarget) {
  write("a.ndjson", rows(0, 1000));
  {
    const MutexLock lock(database.mutex);
    database.upserts_until_gone = 5;
  }
  EXPECT_FALSE(run(options("a.ndjson")).has_value());
  ImportOptions again = options("a.ndjson");
  again.resume = true;
  again.collection = "d";
  EXPECT_EQ(run(again).error().code(), Code::kFailedPrecondition);
  write("a.ndjson", rows(0, 999));
  again.collection = "c";
  EXPECT_EQ(run(again).error().code(), Code::kFailedPrecondition);
  write("a.ndjson.import-state", "{}");
  EXPECT_EQ(run(again).error().code(), Code::kCorruption);
}

TEST_F(ImporterTest, StoppedBeforeItBeganKeepsAState) {
  write("x.idx", std::string("\0\0\x08\2\0\0\0\3\0\0\0\2\0\1\2\3\4\5", 18));
  {
    const MutexLock lock(database.mutex);
    database.dimension = 2;
  }
  stop = true;
  const auto summary = run(options("x.idx"));
  ASSERT_TRUE(summary.has_value()) << summary.error().to_string();
  EXPECT_TRUE(summary->stopped);
  EXPECT_TRUE(exists("x.idx.import-state"));
  stop = false;
  ImportOptions again = options("x.idx");
  again.resume = true;
  EXPECT_EQ(run(again)->rows, 3U);
}

TEST_F(ImporterTest, LimitTakesTheFirstRows) {
  write("a.ndjson", rows(0, 100));
  ImportOptions few = options("a.ndjson");
  few.limit = 33;
  const auto summary = run(few);
  ASSERT_TRUE(summary.has_value());
  EXPECT_EQ(summary->rows, 33U);
  EXPECT_EQ(points_count(), 33U);
}

TEST_F(ImporterTest, StringIdsMakeAStringCollection) {
  write("a.ndjson", "{\"id\":\"x/1\",\"values\":[1,2]}\n{\"id\":\"x/2\",\"values\":[3,4]}\n");
  ASSERT_TRUE(run(options("a.ndjson")).has_value());
  const MutexLock lock(database.mutex);
  EXPECT_EQ(database.created_with, R"({"name":"c","dimension":2,"id_type":"string"})");
  EXPECT_EQ(database.points.size(), 2U);
}

TEST_F(ImporterTest, ADamagedFileEndsTheImport) {
  write("a.fvecs", std::string("\1\0\0\0abcd\2\0\0\0efgh", 16));
  const auto summary = run(options("a.fvecs"));
  ASSERT_FALSE(summary.has_value());
  EXPECT_EQ(summary.error().code(), Code::kCorruption);
}

class ExporterTest : public ImporterTest {
 protected:
  Result<ExportSummary> export_to(const std::string& name, bool zstd = false) {
    ExportOptions options;
    options.collection = "c";
    options.path = path(name);
    options.client.url = *parse_server_url(database.server.url());
    options.client.retry_for = std::chrono::milliseconds(500);
    options.page_rows = 7;
    options.zstd = zstd;
    Progress progress(system_clock_source(), Progress::Style::kQuiet);
    return run_export(posix_file_system(), options, stop, progress);
  }
};

TEST_F(ExporterTest, ExportImportExportIsTheSameBytes) {
  write("a.ndjson", rows(0, 250));
  ASSERT_TRUE(run(options("a.ndjson")).has_value());
  const auto first = export_to("first.ndjson");
  ASSERT_TRUE(first.has_value()) << first.error().to_string();
  EXPECT_EQ(first->rows, 250U);
  EXPECT_EQ(first->bytes, read_bytes("first.ndjson").size());
  {
    const MutexLock lock(database.mutex);
    database.points.clear();
    database.dimension = 0;
  }
  ASSERT_TRUE(run(options("first.ndjson")).has_value());
  ASSERT_TRUE(export_to("second.ndjson").has_value());
  EXPECT_EQ(read_bytes("first.ndjson"), read_bytes("second.ndjson"));
  EXPECT_GT(read_bytes("first.ndjson").size(), 5000U);

  ASSERT_TRUE(export_to("packed.ndjson.zst", true).has_value());
  {
    const MutexLock lock(database.mutex);
    database.points.clear();
  }
  ASSERT_TRUE(run(options("packed.ndjson.zst")).has_value());
  ASSERT_TRUE(export_to("third.ndjson").has_value());
  EXPECT_EQ(read_bytes("first.ndjson"), read_bytes("third.ndjson"));
}

TEST_F(ExporterTest, AsksForLessWhereTheServerWantsIt) {
  database.page_max = 2;
  write("a.ndjson", rows(0, 9));
  ASSERT_TRUE(run(options("a.ndjson")).has_value());
  const auto summary = export_to("out.ndjson");
  ASSERT_TRUE(summary.has_value()) << summary.error().to_string();
  EXPECT_EQ(summary->rows, 9U);
}

TEST_F(ExporterTest, AFailedExportLeavesNothing) {
  EXPECT_EQ(export_to("none.ndjson").error().code(), Code::kNotFound);
  write("a.ndjson", rows(0, 50));
  ASSERT_TRUE(run(options("a.ndjson")).has_value());
  stop = true;
  EXPECT_FALSE(export_to("none.ndjson").has_value());
  EXPECT_FALSE(exists("none.ndjson"));
  EXPECT_FALSE(exists("none.ndjson.tmp"));
}

TEST_F(ExporterTest, AnEmptyCollectionIsAnEmptyFile) {
  {
    const MutexLock lock(database.mutex);
    database.dimension = 2;
  }
  ASSERT_TRUE(export_to("empty.ndjson").has_value());
  EXPECT_TRUE(exists("empty.ndjson"));
  EXPECT_EQ(read_bytes("empty.ndjson"), "");
}

}  // namespace
}  // namespace aionbd
