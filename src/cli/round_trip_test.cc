// Import and export against the real server and engine, in this process.
#include <gtest/gtest.h>

#include "aionbd/database.h"
#include "base/log.h"
#include "cli/exporter.h"
#include "cli/importer.h"
#include "cli/test_files.h"
#include "server/server.h"

namespace aionbd {
namespace {

class RoundTripTest : public TestFiles {
 protected:
  RoundTripTest() {
    SettingSources sources;
    sources.flags = {{"bind", "127.0.0.1:0"},
                     {"persistence_enabled", "false"},
                     {"upsert_batch_max_points", "50"},
                     {"request_timeout_ms", "20000"}};
    auto loaded = load_settings(sources);
    EXPECT_TRUE(loaded.has_value());
    const Settings settings = loaded->settings;
    auto started = Server::start(
        settings, [settings] { return Database::open(database_options(settings)); }, Logger());
    EXPECT_TRUE(started.has_value());
    server_ = std::move(*started);
    client_.url.port = std::to_string(server_->port());
    client_.retry_for = std::chrono::seconds(10);
  }

  Result<ImportSummary> import_from(const std::string& name, const std::string& collection) {
    ImportOptions options;
    options.path = path(name);
    options.collection = collection;
    options.client = client_;
    Progress progress(system_clock_source(), Progress::Style::kQuiet);
    return run_import(posix_file_system(), options, stop_, progress);
  }
  Status export_to(const std::string& name, const std::string& collection) {
    ExportOptions options;
    options.path = path(name);
    options.collection = collection;
    options.client = client_;
    options.page_rows = 64;
    Progress progress(system_clock_source(), Progress::Style::kQuiet);
    return run_export(posix_file_system(), options, stop_, progress).status();
  }
  void expect_round_trip(const std::string& text, uint64_t rows) {
    write("in.ndjson", text);
    const auto first = import_from("in.ndjson", "first");
    ASSERT_TRUE(first.has_value()) << first.error().to_string();
    EXPECT_EQ(first->rows, rows);
    EXPECT_EQ(first->refused, 0U);
    const Status exported = export_to("first.ndjson", "first");
    ASSERT_TRUE(exported.ok()) << exported.to_string();
    const auto second = import_from("first.ndjson", "second");
    ASSERT_TRUE(second.has_value()) << second.error().to_string();
    EXPECT_EQ(second->rows, rows);
    ASSERT_TRUE(export_to("second.ndjson", "second").ok());
    EXPECT_EQ(read_bytes("first.ndjson"), read_bytes("second.ndjson"));
  }

  std::atomic<bool> stop_{false};
  ClientOptions client_;
  std::unique_ptr<Server> server_;
};

TEST_F(RoundTripTest, NumberedPoints) {
  std::string text =
      R"({"id":18446744073709551615,"values":[0.1,-0.0,1e-45,3.4028235e38],)"
      R"("payload":{"é":[1,{"a":null}],"t":"\u0000\n\"","u":18446744073709551615,"d":0.1}})"
      "\n";
  for (int i = 0; i < 500; ++i) {
    text += "{\"id\":" + std::to_string(i * 7) + ",\"values\":[" + std::to_string(i) + "," +
            std::to_string(i * 0.001) + ",-1,2e10]}\n";
  }
  expect_round_trip(text, 501);
  EXPECT_NE(read_bytes("first.ndjson").find("[0.1,-0.0,1e-45,3.4028235e+38]"), std::string::npos)
      << read_bytes("first.ndjson").substr(read_bytes("first.ndjson").size() - 300);
}

TEST_F(RoundTripTest, NamedPoints) {
  std::string text;
  for (int i = 0; i < 150; ++i) {
    text += "{\"id\":\"a/ü " + std::to_string(i) + "\",\"values\":[1," + std::to_string(i) +
            "],\"payload\":{\"n\":" + std::to_string(i) + "}}\n";
  }
  expect_round_trip(text, 150);
}

TEST_F(RoundTripTest, RowsTheServerRefusesAreNamed) {
  write(
      "in.ndjson",
      "{\"id\":1,\"values\":[1,2]}\n{\"id\":2,\"values\":[1,2,3]}\n{\"id\":3,\"values\":[1,1e39]}\n"
      "{\"id\":-4,\"values\":[1,2]}\n{\"id\":5,\"values\":[1,2],\"payload\":{\" \":1}}\n"
      "{\"id\":6,\"values\":[1,2]}\n");
  const auto summary = import_from("in.ndjson", "first");
  ASSERT_TRUE(summary.has_value()) << summary.error().to_string();
  EXPECT_EQ(summary->rows, 2U);
  EXPECT_EQ(summary->refused, 4U);
  for (const char* row : {"{\"row\":2,", "{\"row\":3,", "{\"row\":4,", "{\"row\":5,"}) {
    EXPECT_NE(read_bytes("in.ndjson.refused.ndjson").find(row), std::string::npos) << row;
  }
}

}  // namespace
}  // namespace aionbd
