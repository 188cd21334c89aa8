/* html.c - see html.h. */
#include "web/html.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "base/escape.h"
#include "web/web.h"

/* ---- text ---- */

static bool is_plain(const char *text, size_t length)
{
    const unsigned char c = (unsigned char)text[0];
    if (length == 1) {
        return c >= 0x20 && c != 0x7f;
    }
    /* C1 controls, and the marks that reorder text (U+200E, U+200F, U+202A..E, U+2066..9) */
    const unsigned char d = (unsigned char)text[1], e = length > 2 ? (unsigned char)text[2] : 0;
    if (c == 0xc2 && d < 0xa0) {
        return false;
    }
    return !(c == 0xe2 && ((d == 0x80 && (e == 0x8e || e == 0x8f || (e >= 0xaa && e <= 0xae))) ||
                           (d == 0x81 && e >= 0xa6 && e <= 0xa9))) &&
           !(c == 0xef && d == 0xbf && e >= 0xbe); /* U+FFFE and U+FFFF are not of XML */
}

void fl_html_text(struct fl_buf *out, const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        size_t length = fl_utf8_length(text, left);
        if (length == 0 || !is_plain(text, length)) {
            fl_buf_printf(out, "\xef\xbf\xbd");
            length = length ? length : 1;
        } else if (strchr("&<>\"'", text[0])) {
            fl_buf_printf(out, "&#%d;", text[0]);
        } else {
            fl_buf_append(out, text, length);
        }
        text += length;
        left -= length;
    }
}

void fl_html_bytes(struct fl_buf *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000.0 && unit < sizeof units / sizeof units[0] - 1) {
        value /= 1000.0;
        unit++;
    }
    fl_buf_printf(out, unit > 0 && value < 100.0 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

void fl_html_seconds(struct fl_buf *out, double seconds)
{
    static const struct {
        double size;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    size_t i = 0;
    while (i < 3 && seconds < 2 * units[i].size)
        i++;
    fl_buf_printf(out, "%.0f %s", floor(fmax(seconds, 0.0) / units[i].size), units[i].name);
}

void fl_html_time(struct fl_buf *out, int64_t wall_ms)
{
    char text[40];
    struct tm parts;
    time_t seconds = (time_t)(wall_ms / 1000);
    if (wall_ms != 0 && gmtime_r(&seconds, &parts) &&
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) > 0)
        fl_buf_printf(out, "%s", text);
}

void fl_html_fact(struct fl_buf *out, const char *label, const char *text)
{
    fl_buf_printf(out, "<div><b>");
    fl_html_text(out, text);
    fl_buf_printf(out, "</b><span>%s</span></div>", label);
}

void fl_html_fact_bytes(struct fl_buf *out, const char *label, uint64_t bytes)
{
    fl_buf_printf(out, "<div><b>");
    fl_html_bytes(out, bytes);
    fl_buf_printf(out, "</b><span>%s</span></div>", label);
}

/* ---- the frame ---- */

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--fg:#1d1f21;--mute:#62666b;"
    "--line:#dedfe0;--a:#1d5fd1;--b:#c2410c;--good:#15803d;--bad:#b91c1c}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#131517;--card:#1b1e21;--fg:#e7e8e9;"
    "--mute:#9aa0a6;--line:#33373b;--a:#7fabff;--b:#ffa366;--good:#6ee7a0;--bad:#ff9b9b}}\n"
    "*{box-sizing:border-box}body{margin:0;padding:1rem;background:var(--bg);color:var(--fg);"
    "font:16px/1.45 system-ui,sans-serif}main{max-width:72rem;margin:0 auto}\n"
    "header{display:flex;flex-wrap:wrap;gap:.3rem .8rem;align-items:baseline;margin:0 0 .8rem}\n"
    "h1{font-size:1.35rem;margin:0;overflow-wrap:anywhere}h2{font-size:1rem;margin:0 0 .4rem}\n"
    "p{margin:.2rem 0}.mute{color:var(--mute)}.good{color:var(--good)}.bad{color:var(--bad)}\n"
    ".grid{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr)"
    ")}\n.whole{grid-column:1/-1}section{background:var(--card);border:1px solid var(--line);"
    "border-radius:.6rem;padding:.8rem;min-width:0}\n"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}\n"
    "td,th{padding:.25rem .7rem .25rem 0;text-align:left;vertical-align:top;"
    "border-top:1px solid var(--line)}th{font-weight:400;color:var(--mute)}"
    "tr:first-child>*{border-top:0}td.n,th.n{text-align:right;white-space:nowrap;font-variant-"
    "numeric:tabular-nums}\n"
    ".name{overflow-wrap:anywhere;min-width:5em}code{font-size:.85em}a{color:var(--a)}"
    "progress{width:100%;accent-color:var(--a)}\n"
    "ol.phases{display:flex;flex-wrap:wrap;gap:.3rem;list-style:none;padding:0;margin:.4rem 0}"
    ".phases li{border:1px solid var(--line);border-radius:.5rem;padding:0 .45rem;"
    "color:var(--mute);font-size:.88rem}.phases .now{background:var(--a);border-color:var(--a);"
    "color:var(--card);font-weight:600}\n"
    ".facts{display:flex;flex-wrap:wrap;gap:.2rem 1.4rem;margin:.3rem 0}.facts div{min-width:5rem}"
    ".facts b{display:block;font-size:1.12rem;font-weight:600;font-variant-numeric:tabular-nums}"
    ".facts span{color:var(--mute);font-size:.85rem}\n"
    "svg{display:block;width:100%;height:auto}svg text{fill:var(--mute);font:11px "
    "system-ui,sans-serif}.end{text-anchor:end}.mid{text-anchor:middle}.rule{stroke:var(--line)}"
    ".a,.b{fill:none;stroke-width:1.8;stroke-linejoin:round}.a{stroke:var(--a)}.b{stroke:var(--b)}"
    ".dot{fill:var(--b)}.dota,.cell{fill:var(--a)}\n"
    ".key{font-size:.85rem;color:var(--mute);margin:.3rem 0 0}.key i{display:inline-block;"
    "width:.9em;height:.25em;vertical-align:middle;margin:0 .35em 0 0;background:var(--a)}"
    ".key .kb{background:var(--b)}\n"
    ".lost{background:var(--bad);color:var(--card);padding:.3rem .6rem;border-radius:.4rem}"
    "@media(max-width:40rem){body{padding:.6rem}.wide{display:none}section{padding:.6rem}}\n";

/* The page is fetched again and its main part exchanged: what is drawn has one author, the server.
 */
static const char script[] =
    "'use strict';\n"
    "let lost=0;\n"
    "async function again(){\n"
    " try{\n"
    "  if(!document.hidden){\n"
    "   const r=await fetch(location.origin+location.pathname,{cache:'no-store',"
    "signal:AbortSignal.timeout(10000)});\n"
    "   if(!r.ok)throw 0;\n"
    "   const d=new DOMParser().parseFromString(await r.text(),'text/html');\n"
    "   const m=document.querySelector('main'),n=d.querySelector('main');\n"
    "   if(m&&n&&m.innerHTML!==n.innerHTML&&getSelection().isCollapsed){\n"
    "    const x=[...m.querySelectorAll('.scroll')].map(e=>e.scrollLeft);\n"
    "    m.replaceWith(n);\n"
    "    n.querySelectorAll('.scroll').forEach((e,i)=>{e.scrollLeft=x[i]||0});\n"
    "    document.title=d.title;\n"
    "   }\n"
    "   lost=0;\n"
    "  }\n"
    " }catch(e){\n"
    "  const h=document.querySelector('header');\n"
    "  if(++lost===2&&h){const p=document.createElement('p');p.className='lost';"
    "p.textContent='no answer since '+new Date().toLocaleTimeString();h.append(p)}\n"
    " }\n"
    " setTimeout(again,2000);\n"
    "}\n"
    "setTimeout(again,2000);\n";

void fl_html_begin(struct fl_buf *out, const char *title, bool live)
{
    fl_buf_printf(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
                       "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>"
                       "<link rel=\"icon\" href=\"/icon.svg\" type=\"image/svg+xml\"/><title>");
    fl_html_text(out, title);
    fl_buf_printf(out, "</title><link rel=\"stylesheet\" href=\"/app.css\"/>");
    if (live)
        fl_buf_printf(out, "<script src=\"/app.js\" defer=\"defer\"></script><noscript>"
                           "<meta http-equiv=\"refresh\" content=\"5\"/></noscript>");
    fl_buf_printf(out, "</head>\n<body><main>");
}

void fl_html_end(struct fl_buf *out)
{
    fl_buf_printf(out, "</main></body></html>\n");
}

bool fl_html_asset(const char *path, struct fl_web_reply *reply)
{
    static const struct {
        const char *path, *type, *text;
    } assets[] = {
        {"/app.css", "text/css; charset=utf-8", style},
        {"/app.js", "text/javascript; charset=utf-8", script},
        {"/icon.svg", "image/svg+xml",
         "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 16 16\"><g fill=\"#1d5fd1\">"
         "<circle cx=\"8\" cy=\"8\" r=\"3\"/><circle cx=\"8\" cy=\"2\" r=\"1.6\"/>"
         "<circle cx=\"2.5\" cy=\"12.5\" r=\"1.6\"/><circle cx=\"13.5\" cy=\"12.5\" r=\"1.6\"/></g>"
         "</svg>"},
    };
    for (size_t i = 0; i < sizeof assets / sizeof assets[0]; i++) {
        if (strcmp(path, assets[i].path) != 0)
            continue;
        reply->code = 200;
        reply->type = assets[i].type;
        fl_buf_append(&reply->body, assets[i].text, strlen(assets[i].text));
        return true;
    }
    return false;
}
