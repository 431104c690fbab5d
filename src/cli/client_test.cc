#include "cli/client.h"

#include <gtest/gtest.h>

#include "cli/fake_server.h"

namespace aionbd {
namespace {

ClientOptions options_for(const FakeServer& server) {
  ClientOptions options;
  options.url = *parse_server_url(server.url());
  options.timeout = std::chrono::milliseconds(2000);
  options.retry_for = std::chrono::milliseconds(3000);
  return options;
}

TEST(ClientTest, UrlsAreTakenApart) {
  const auto plain = parse_server_url("http://example.org");
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->authority(), "example.org:80");
  const auto full = parse_server_url("http://127.0.0.1:8080/db/");
  ASSERT_TRUE(full.has_value());
  EXPECT_EQ(full->port, "8080");
  EXPECT_EQ(full->prefix, "/db");
  const auto v6 = parse_server_url("http://[::1]:99");
  ASSERT_TRUE(v6.has_value());
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->authority(), "[::1]:99");
  for (const char* bad :
       {"", "127.0.0.1:8080", "ftp://x", "https://x", "http://", "http://:80",
        "http://x:", "http://x:0", "http://x:65536", "http://x:8o", "http://user@x", "http://x/a b",
        "http://x/\r\nA: b", "http://[::1", "http://[::1]x", "http://x?y"}) {
    EXPECT_FALSE(parse_server_url(bad).has_value()) << bad;
  }
}

TEST(ClientTest, PathSegmentsAreEncoded) {
  EXPECT_EQ(url_encoded("a.B-9_~"), "a.B-9_~");
  EXPECT_EQ(url_encoded("a/ ?\xC3\xA9"), "a%2F%20%3F%C3%A9");
}

TEST(ClientTest, KeepsTheConnectionAndSendsCredentials) {
  FakeServer server([](const FakeServer::Request& request) {
    FakeServer::Answer answer;
    answer.body = request.method + " " + request.target + " " + request.body;
    EXPECT_NE(request.head.find("x-api-key: secret\r\n"), std::string::npos);
    return answer;
  });
  ClientOptions options = options_for(server);
  options.api_key = "secret";
  options.url.prefix = "/p";
  HttpClient client(options);
  for (int i = 0; i < 5; ++i) {
    const auto got = client.request("POST", "/x", "{}");
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->body, "POST /p/x {}");
  }
  EXPECT_EQ(client.request("GET", "/y")->body, "GET /p/y ");
  EXPECT_EQ(server.connections(), 1);
}

TEST(ClientTest, AKeptConnectionThatWasClosedIsOpenedAgain) {
  std::atomic<int> calls{0};
  FakeServer server([&calls](const FakeServer::Request&) {
    ++calls;
    FakeServer::Answer answer;
    answer.close_after = true;
    return answer;
  });
  HttpClient client(options_for(server));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(client.request("GET", "/").has_value());
    usleep(20000);
  }
  EXPECT_EQ(calls, 3);
}

TEST(ClientTest, RepeatsUntilTheServerHasRecovered) {
  std::atomic<int> calls{0};
  FakeServer server([&calls](const FakeServer::Request& request) {
    EXPECT_EQ(request.body, "{\"a\":1}");
    FakeServer::Answer answer;
    switch (calls++) {
      case 0: answer.reset = true; break;
      case 1: answer.drop = true; break;
      case 2: answer.status = 503; break;
      case 3: answer.status = 429; break;
      default: answer.body = "done";
    }
    return answer;
  });
  HttpClient client(options_for(server));
  const auto got = client.call("POST", "/", "{\"a\":1}");
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->body, "done");
  EXPECT_EQ(calls, 5);
  EXPECT_EQ(client.retries(), 4U);
}

TEST(ClientTest, RetryAfterSetsThePause) {
  std::atomic<int> calls{0};
  FakeServer server([&calls](const FakeServer::Request&) {
    FakeServer::Answer answer;
    if (calls++ == 0) {
      answer.status = 503;
      answer.more_head = "Retry-After: 1\r\n";
    }
    return answer;
  });
  HttpClient client(options_for(server));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(client.call("GET", "/")->status, 200U);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST(ClientTest, DoesNotRepeatWhatWillNotChange) {
  std::atomic<int> calls{0};
  FakeServer server([&calls](const FakeServer::Request&) {
    ++calls;
    FakeServer::Answer answer;
    answer.status = 400;
    answer.body = R"({"code":"invalid_argument","message":"no"})";
    return answer;
  });
  HttpClient client(options_for(server));
  const auto got = client.call("POST", "/", "{}");
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(status_of(*got).code(), Code::kInvalidArgument);
  EXPECT_EQ(status_of(*got).message(), "no");
  EXPECT_EQ(calls, 1);
}

TEST(ClientTest, GivesUpInTimeAndAtOnceWhenStopped) {
  ClientOptions options;
  options.url.port = "1";  // nobody listens there
  options.retry_for = std::chrono::milliseconds(300);
  HttpClient client(options);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(client.call("GET", "/").error().code(), Code::kUnavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
  options.retry_for = std::chrono::seconds(60);
  HttpClient patient(options);
  const std::atomic<bool> stop{true};
  EXPECT_FALSE(patient.call("GET", "/", {}, &stop).has_value());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
}

TEST(ClientTest, ASilentServerIsATimeout) {
  FakeServer server([](const FakeServer::Request&) {
    FakeServer::Answer answer;
    answer.delay_ms = 1500;
    return answer;
  });
  ClientOptions options = options_for(server);
  options.timeout = std::chrono::milliseconds(200);
  HttpClient client(options);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(client.request("GET", "/").error().code(), Code::kUnavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(1200));
}

// It may be under way: a delete that is sent again would be told that there is nothing to delete.
TEST(ClientTest, ATimeoutOfAKeptConnectionIsNotSentAgain) {
  std::atomic<int> calls{0};
  FakeServer server([&calls](const FakeServer::Request&) {
    FakeServer::Answer answer;
    if (++calls == 2) answer.delay_ms = 600;
    return answer;
  });
  ClientOptions options = options_for(server);
  options.timeout = std::chrono::milliseconds(200);
  HttpClient client(options);
  EXPECT_TRUE(client.request("DELETE", "/").has_value());
  EXPECT_EQ(client.request("DELETE", "/").error().code(), Code::kUnavailable);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(server.connections(), 1);
}

TEST(ClientTest, AnAnswerGivenBeforeTheBodyWasReadIsSeen) {
  FakeServer server([](const FakeServer::Request&) { return FakeServer::Answer{}; },
                    [](const FakeServer::Request&, size_t, FakeServer::Answer* answer) {
                      answer->status = 413;
                      answer->body = R"({"code":"payload_too_large","message":"too large"})";
                      return true;
                    });
  HttpClient client(options_for(server));
  const std::string body(8 << 20, 'x');
  for (int i = 0; i < 3; ++i) {
    const auto got = client.request("POST", "/", body);
    ASSERT_TRUE(got.has_value()) << got.error().to_string();
    EXPECT_EQ(got->status, 413U);
  }
}

}  // namespace
}  // namespace aionbd
