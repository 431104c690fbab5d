#include "server/wire.h"

#include <gtest/gtest.h>

#include "server/routes.h"

namespace aionbd {
namespace {

std::string padded(std::string_view text) {
  return std::string(text) + std::string(64, ' ');
}

template <typename Decode>
Status decode_status(std::string_view text, const Decode& decode) {
  const std::string body = padded(text);
  JsonReader reader;
  return decode(reader, std::string_view(body).substr(0, text.size())).status();
}

Status search_status(std::string_view filter) {
  const std::string body = "{\"query\":[1],\"filter\":" + std::string(filter) + "}";
  return decode_status(body, [](JsonReader& reader, std::string_view text) {
    CollectionOptions options;
    options.dimension = 1;
    return decode_search(reader, text, SearchShape::kTopK, options, WireLimits{});
  });
}

TEST(WireFilter, KnowsEveryClause) {
  for (const char* good : {
           R"({})",
           R"(null)",
           R"({"must":[]})",
           R"({"must":[{"field":"a","value":1}]})",
           R"({"must":[{"field":"a","value":null}]})",
           R"({"must":[{"field":"a","in":[1,"x"]}]})",
           R"({"must":[{"field":"a","in":[]}]})",
           R"({"must":[{"field":"a","contains_all":[1]}]})",
           R"({"must":[{"field":"a","exists":false}]})",
           R"({"must":[{"field":"a","prefix":""}]})",
           R"({"must":[{"field":"a","gt":1}]})",
           R"({"must":[{"field":"a","gte":1,"lt":2.5}]})",
           R"({"must_not":[{"must":[{"field":"a","value":1}]}]})",
           R"({"should":[{"field":"a","value":1}],"minimum_should_match":1})",
           R"({"must":[{"should":[{"field":"a","value":1}],"minimum_should_match":1}]})",
       }) {
    EXPECT_TRUE(search_status(good).ok()) << good << search_status(good).to_string();
  }
  for (const char* bad : {
           R"([])",
           R"({"x":1})",
           R"({"must":{}})",
           R"({"must":[1]})",
           R"({"must":[{}]})",
           R"({"must":[{"field":"a"}]})",
           R"({"must":[{"value":1}]})",
           R"({"must":[{"field":" ","value":1}]})",
           R"({"must":[{"field":1,"value":1}]})",
           R"({"must":[{"field":"a","value":[1]}]})",
           R"({"must":[{"field":"a","value":{}}]})",
           R"({"must":[{"field":"a","value":1,"gt":1}]})",
           R"({"must":[{"field":"a","gt":"1"}]})",
           R"({"must":[{"field":"a","in":1}]})",
           R"({"must":[{"field":"a","in":[[1]]}]})",
           R"({"must":[{"field":"a","exists":1}]})",
           R"({"must":[{"field":"a","prefix":1}]})",
           R"({"must":[{"field":"a","value":1,"must":[]}]})",
           R"({"minimum_should_match":1})",
           R"({"must":[{"field":"a","value":1,"valu":1}]})",
           R"({"should":[{"field":"a","value":1}],"minimum_should_match":2})",
           R"({"must":[{"minimum_should_match":1}]})",
       }) {
    EXPECT_EQ(search_status(bad).code(), Code::kInvalidArgument) << bad;
  }
}

TEST(WireFilter, IsBounded) {
  std::string many = "{\"must\":[";
  for (size_t i = 0; i < kFilterClausesMax; ++i) many += R"({"field":"a","value":1},)";
  EXPECT_TRUE(search_status(many.substr(0, many.size() - 1) + "]}").ok());
  EXPECT_FALSE(search_status(many + R"({"field":"a","value":1}]})").ok());
  std::string deep, end;
  for (int i = 0; i < 100; ++i) {
    deep += "{\"must\":[";
    end += "]}";
  }
  EXPECT_FALSE(search_status(deep + end).ok());
}

TEST(WireFilter, KeepsNumbersAsTheyAre) {
  const std::string text =
      R"({"query":[1],"filter":{"must":[{"field":"a","value":9007199254740993},{"field":"b","value":1.0}]}})";
  const std::string body = padded(text);
  JsonReader reader;
  CollectionOptions options;
  options.dimension = 1;
  const auto search = decode_search(reader, std::string_view(body).substr(0, text.size()),
                                    SearchShape::kTopK, options, WireLimits{});
  ASSERT_TRUE(search.has_value());
  const auto& must = (*search).filter->must;
  ASSERT_EQ(must.size(), 2U);
  const Value& whole = std::get<EqualTo>(must[0].test).value;
  EXPECT_EQ(std::get<int64_t>(whole.data()), 9007199254740993);
  EXPECT_EQ(std::get<double>(std::get<EqualTo>(must[1].test).value.data()), 1.0);
}

TEST(WireIds, AreExact) {
  EXPECT_EQ((*parse_point_id("18446744073709551615", IdType::kU64)).number(), UINT64_MAX);
  for (const char* bad : {"", "-1", "+1", "01", "1.0", "1e3", " 1", "18446744073709551616",
                          "99999999999999999999999", "x"}) {
    EXPECT_FALSE(parse_point_id(bad, IdType::kU64).has_value()) << bad;
  }
  EXPECT_EQ((*parse_point_id("01", IdType::kString)).text(), "01");
  EXPECT_FALSE(parse_point_id("", IdType::kString).has_value());
  EXPECT_TRUE(parse_point_id(std::string(512, 'x'), IdType::kString).has_value());
  EXPECT_FALSE(parse_point_id(std::string(513, 'x'), IdType::kString).has_value());
}

TEST(WireNames, FollowTheContract) {
  EXPECT_EQ(*parse_collection_name("  a.B_9- "), "a.B_9-");
  EXPECT_TRUE(parse_collection_name(std::string(128, 'x')).has_value());
  for (const std::string& bad :
       {std::string(), std::string("  "), std::string("."), std::string(".."), std::string("a..b"),
        std::string("a/b"), std::string("a b"), std::string("\xc3\xa9"), std::string(129, 'x'),
        std::string("a\0b", 3), std::string("a\n b")}) {
    EXPECT_FALSE(parse_collection_name(bad).has_value()) << bad;
  }
}

TEST(WirePayload, KeysAreNames) {
  const auto put = [](std::string_view payload) {
    const std::string text = "{\"values\":[1],\"payload\":" + std::string(payload) + "}";
    const std::string body = padded(text);
    JsonReader reader;
    CollectionOptions options;
    options.dimension = 1;
    Point point;
    return decode_point_body(reader, std::string_view(body).substr(0, text.size()), options, point);
  };
  EXPECT_TRUE(put(R"({"a":"\u0000"})").ok());
  EXPECT_TRUE(put("null").ok());
  EXPECT_TRUE(put("{\"" + std::string(256, 'k') + "\":1}").ok());
  EXPECT_FALSE(put("{\"" + std::string(257, 'k') + "\":1}").ok());
  EXPECT_FALSE(put(R"({" ":1})").ok());
  EXPECT_FALSE(put(R"({"":1})").ok());
  EXPECT_FALSE(put(R"({"a":1,"a":1})").ok());
  EXPECT_FALSE(put("[]").ok());
}

TEST(WireErrors, MessagesNameFieldAndBound) {
  const Status status =
      decode_status(R"({"query":[1],"limit":0})", [](JsonReader& reader, std::string_view text) {
        CollectionOptions options;
        options.dimension = 1;
        return decode_search(reader, text, SearchShape::kTopK, options, WireLimits{});
      });
  EXPECT_EQ(status.message(), "limit must be between 1 and 1000: got 0");
  const Status point =
      decode_status(R"({"points":[{"id":1,"values":[1]},{"id":2,"values":[1,2]}]})",
                    [](JsonReader& reader, std::string_view text) {
                      CollectionOptions options;
                      options.dimension = 1;
                      return decode_upsert(reader, text, options, WireLimits{});
                    });
  EXPECT_EQ(point.message(), "points[1]: values must be an array of at most 1 numbers");
}

TEST(Routes, EveryRowIsReachableAndAnswersItsOwnMethodOnly) {
  for (const Route& route : routes()) {
    std::string path;
    for (const char c : route.pattern) path += c == ':' ? 'p' : c;
    const RouteMatch match = find_route(route.method, path);
    ASSERT_NE(match.route, nullptr) << route.pattern;
    EXPECT_EQ(match.route->pattern, route.pattern);
    EXPECT_FALSE(route.summary.empty());
    EXPECT_EQ(find_route(HttpMethod::kOther, path).route, nullptr);
    EXPECT_NE(find_route(HttpMethod::kOther, path).allow.find(method_name(route.method)),
              std::string::npos);
  }
  EXPECT_EQ(find_route(HttpMethod::kGet, "/nope").allow, "");
  EXPECT_EQ(find_route(HttpMethod::kGet, "/collections/").route, nullptr);
}

}  // namespace
}  // namespace aionbd
