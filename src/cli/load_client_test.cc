// The oracle of the kill loop and of soak, against a server that lies.
#include "cli/load_client.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "cli/fake_server.h"

namespace aionbd {
namespace {

constexpr uint32_t kDimension = 4;
using Outcome = LoadStep::Outcome;

std::string row_json(uint64_t id, LoadRow row, const std::string& more = "") {
  return fmt::format(
      "{{\"id\":{},\"values\":[{}],\"payload\":{{\"id\":{},\"sequence\":{},\"touched\":{}}}{}}}",
      id, fmt::join(load_vector(id, row.sequence, kDimension), ","), id, row.sequence, row.touched,
      more);
}

FakeServer::Answer says(int status, std::string body) {
  FakeServer::Answer out;
  out.status = status;
  out.body = std::move(body);
  return out;
}

/// One client that owns ids 0 and 1, and a server that answers what the test says.
class LoadClientTest : public testing::Test {
 protected:
  LoadClientTest()
      : server_([this](const FakeServer::Request& request) {
          target_ = request.target;
          return answer_;
        }) {
    options_.collection = "c";
    options_.dimension = kDimension;
    options_.keys_each = options_.batch_max = 2;
    ClientOptions connection;
    connection.url = parse_server_url(server_.url()).value();
    client_ = std::make_unique<LoadClient>(options_, 0, 1, &board_, connection);
  }

  LoadStep step(LoadOp op, FakeServer::Answer answer) {
    answer_ = std::move(answer);
    options_.weights = {};
    options_.weights[static_cast<size_t>(op)] = 1;
    return client_->step();
  }
  /// Both ids are stored: sequences 1 and 2.
  void fill() {
    ASSERT_EQ(step(LoadOp::kUpsertBatch, says(200, "{}")).outcome, Outcome::kDone);
    ASSERT_EQ(client_->present(), 2U);
  }
  LoadStep get(const std::string& points) {
    return step(LoadOp::kGet, says(200, "{\"points\":[" + points + "],\"missing\":[]}"));
  }
  void expect_wrong(const LoadStep& step, std::string_view says) {
    EXPECT_EQ(step.outcome, Outcome::kWrong);
    EXPECT_NE(step.problem.find(says), std::string::npos) << step.problem;
  }

  LoadOptions options_;
  LoadBoard board_{2};
  FakeServer::Answer answer_;
  std::string target_;
  FakeServer server_;
  std::unique_ptr<LoadClient> client_;
};

TEST_F(LoadClientTest, ReadsMustGiveWhatWasAcknowledged) {
  fill();
  const std::string zero = row_json(0, {1, 0}), one = row_json(1, {2, 0});
  EXPECT_EQ(get(zero + "," + one).outcome, Outcome::kDone);
  expect_wrong(get(zero), "get of id 1");
  expect_wrong(get(zero + "," + row_json(1, {1, 0})), "get of id 1");
  expect_wrong(get(zero + "," + row_json(1, {2, 7})), "get of id 1");
  std::string torn = one;
  torn.replace(torn.find("\"sequence\":2"), 12, "\"sequence\":1");
  expect_wrong(get(zero + "," + torn), "torn");
  expect_wrong(get("{\"id\":1}"), "not of our form");
  expect_wrong(step(LoadOp::kGet, says(404, "{}")), "unexpected answer 404");
  EXPECT_EQ(step(LoadOp::kGet, says(503, "{\"code\":\"overloaded\"}")).outcome, Outcome::kRefused);
  EXPECT_EQ(step(LoadOp::kGet, says(503, "{\"code\":\"not_ready\"}")).outcome, Outcome::kError);
}

TEST_F(LoadClientTest, ARequestInDoubtHappenedWholeOrNotAtAll) {
  fill();
  FakeServer::Answer none;
  none.drop = true;
  EXPECT_EQ(step(LoadOp::kUpsertBatch, none).outcome, Outcome::kNoAnswer);
  ASSERT_TRUE(client_->in_doubt());
  const auto settle = [this](const std::string& points) {
    answer_ = says(200, "{\"points\":[" + points + "],\"missing\":[]}");
    return client_->settle();
  };
  const Status half = settle(row_json(0, {3, 0}) + "," + row_json(1, {2, 0}));
  EXPECT_NE(half.message().find("half a batch"), std::string::npos) << half.message();
  EXPECT_TRUE(client_->in_doubt());
}

TEST_F(LoadClientTest, EitherOutcomeOfADoubtIsKnownAfterwards) {
  fill();
  EXPECT_EQ(step(LoadOp::kDeleteBatch, says(500, "{}")).outcome, Outcome::kError);
  ASSERT_TRUE(client_->in_doubt());
  answer_ = says(200, "{\"points\":[],\"missing\":[0,1]}");
  ASSERT_TRUE(client_->settle().ok());
  EXPECT_EQ(client_->present(), 0U);
  EXPECT_EQ(client_->doubts_applied(), 1U);
  const FakeServer::Answer nothing = answer_;
  EXPECT_EQ(step(LoadOp::kUpsertBatch, says(500, "{}")).outcome, Outcome::kError);
  answer_ = nothing;
  ASSERT_TRUE(client_->settle().ok());
  EXPECT_EQ(client_->doubts_dropped(), 1U);
  EXPECT_EQ(step(LoadOp::kDelete, says(404, "{}")).outcome, Outcome::kDone) << "it is not there";
  fill();
  expect_wrong(step(LoadOp::kDelete, says(404, "{}")), "says 404");
}

TEST_F(LoadClientTest, EverythingStoredIsJudged) {
  fill();
  EXPECT_TRUE(client_->verify({{0, {1, 0}}, {1, {2, 0}}}).ok());
  EXPECT_NE(client_->verify({{0, {1, 0}}}).message().find("lost"), std::string::npos);
  EXPECT_NE(client_->verify({{0, {1, 0}}, {1, {9, 0}}}).message().find("phantom"),
            std::string::npos);
}

TEST_F(LoadClientTest, HitsMustBeLiveTrueOrderedAndEnough) {
  fill();
  // The search is for a row of ours or for none, so the distances are not known here: the server
  // gives them for what it is asked.
  const auto search = [this](const std::string& hits) {
    return step(LoadOp::kSearch,
                says(200, "{\"metric\":\"l2\",\"mode\":\"exact\",\"hits\":[" + hits + "]}"));
  };
  const auto zero = load_vector(0, 1, kDimension), one = load_vector(1, 2, kDimension);
  double apart = 0;
  for (size_t i = 0; i < kDimension; ++i) apart += (zero[i] - one[i]) * (zero[i] - one[i]);
  const auto hit = [](uint64_t id, LoadRow row, double value) {
    return row_json(id, row, fmt::format(",\"value\":{}", value));
  };
  const double distance = std::sqrt(apart);
  // Whichever row the search is for, one of the two orders is the right one.
  int right = 0;
  for (int i = 0; i < 40; ++i) {
    right += search(hit(0, {1, 0}, 0) + "," + hit(1, {2, 0}, distance)).outcome == Outcome::kDone;
    right += search(hit(1, {2, 0}, 0) + "," + hit(0, {1, 0}, distance)).outcome == Outcome::kDone;
  }
  EXPECT_GT(right, 10);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(search("").outcome, Outcome::kWrong) << "too few";
    EXPECT_EQ(search(hit(0, {1, 0}, distance / 2)).outcome, Outcome::kWrong);
    EXPECT_EQ(search(hit(0, {9, 0}, 0)).outcome, Outcome::kWrong) << "never written";
    EXPECT_EQ(search(hit(0, {1, 0}, 0) + "," + hit(0, {1, 0}, 0)).outcome, Outcome::kWrong);
    EXPECT_EQ(search(hit(7, {1, 0}, 0)).outcome, Outcome::kWrong) << "nobody's";
  }
}

}  // namespace
}  // namespace aionbd
