"""The page's style sheet: one ink, one colour for the student, one for the teacher."""

from __future__ import annotations

# Blue and orange of one lightness each stay apart in every common colour blindness; shapes repeat the difference.
LIGHT = """
--paper:#fdfcfa;--ink:#1c1d21;--soft:#5b5e66;--rule:#dedbd3;--track:#eceae4;--bar:#8b8f98;--lost:#dcd9d1;
--student:#0b61a4;--teacher:#b84e00;--wrong:#55585f;--cellink:#1c1d21;--cellstrong:#fff;
"""
DARK = """
--paper:#15171b;--ink:#e9e7e2;--soft:#a3a6ad;--rule:#34373d;--track:#24272c;--bar:#7f848e;--lost:#3a3d44;
--student:#63b0f0;--teacher:#f09a4e;--wrong:#a9adb5;--cellink:#e9e7e2;--cellstrong:#101215;
"""

STYLE = (
    ":root{color-scheme:light dark;" + LIGHT + "}"
    "@media screen and (prefers-color-scheme:dark){:root{" + DARK + "}}"
    """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums lining-nums}
main,header,footer{max-width:720px;margin:0 auto;padding:0 20px}
header{padding-top:48px}
h1,h2,.big{font-family:Charter,"Bitstream Charter","Iowan Old Style",Georgia,"Liberation Serif",serif;font-weight:600;
text-wrap:balance}
h1{font-size:clamp(1.75rem,1.2rem + 2.6vw,2.6rem);line-height:1.16;margin:.3rem 0 1rem;letter-spacing:-.01em}
h2{font-size:1.55rem;line-height:1.2;margin:0 0 .4rem}
h3{font-size:1rem;margin:2rem 0 .3rem}
p{margin:.4rem 0 1rem;max-width:66ch}
section{border-top:1px solid var(--rule);margin-top:3.2rem;padding-top:1.5rem}
.kicker,.note,figcaption,summary,.facts dt,caption,nav{color:var(--soft);font-size:.875rem}
.kicker{margin:0}
.lede{font-size:1.125rem;line-height:1.5}
.verdict{border-left:3px solid var(--ink);padding:.1rem 0 .1rem 1rem;margin:1.4rem 0}
.verdict p{margin:.2rem 0}
.verdict .scroll{margin:.3rem 0}.verdict tr:last-child>*{border-bottom:0}
nav{display:flex;flex-wrap:wrap;gap:.2rem .95rem;margin:1.6rem 0 0}
a{color:inherit;text-decoration-color:var(--rule);text-underline-offset:3px}
a:hover,a:focus-visible{text-decoration-color:currentColor}
:focus-visible{outline:2px solid var(--student);outline-offset:2px}
figure{margin:1.4rem 0 1rem}
figcaption{max-width:66ch;margin:0 0 .6rem}
figcaption b{color:var(--ink);display:block;font-size:1rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));gap:0 28px}
.three{grid-template-columns:repeat(auto-fit,minmax(min(210px,100%),1fr));gap:0 12px}
.pair figure{margin-bottom:.4rem}
svg{display:block;width:100%;height:auto;overflow:visible;font-size:13px}
.narrow{display:none}
@media (max-width:639px){.wide{display:none}.narrow{display:block}header{padding-top:28px}}
svg text{fill:var(--ink)}
svg .tick{fill:var(--soft);font-size:12px}
svg .value{font-weight:600}
svg .value.student{fill:var(--student)}svg .value.teacher{fill:var(--teacher)}svg .value.light{font-weight:400}
.grid{stroke:var(--rule);stroke-width:1}
.rail{stroke:var(--rule);stroke-width:1;stroke-dasharray:1 3}
.axis{stroke:var(--soft);stroke-width:1}
.gap{stroke:var(--bar);stroke-width:1.5}
.diagonal,.target{stroke:var(--soft);stroke-width:1;stroke-dasharray:4 4}
.whisker{stroke-width:2.5;stroke-linecap:round;opacity:.45}
.curve{stroke-width:2;fill:none}.dashed{stroke-dasharray:5 4}
line.student{stroke:var(--student)}line.teacher{stroke:var(--teacher)}line.neither{stroke:var(--ink)}
circle.student,path.student,rect.student{fill:var(--student)}
circle.teacher,path.teacher,rect.teacher{fill:var(--teacher)}
circle.neither{fill:var(--ink)}
.hollow{stroke-width:2}
circle.student.hollow{fill:var(--paper);stroke:var(--student)}
path.teacher.hollow{fill:var(--paper);stroke:var(--teacher)}
circle.neither.hollow{fill:var(--paper);stroke:var(--ink)}
.bar{fill:var(--bar)}.lost{fill:var(--lost)}.track{fill:var(--track)}.empty{fill:var(--track);fill-opacity:.6}
.wrong{fill:var(--wrong)}
.settled{fill:var(--ink)}.unconfirmed{fill:var(--bar)}.promised{fill:var(--lost)}
.dots{fill:none;stroke-linecap:round}.dots.chosen{stroke:var(--student);stroke-width:4.5}
.dots.passed{stroke:var(--bar);stroke-width:2.8;stroke-opacity:.7}
.dots.dropped,.dots.heldout{stroke:var(--soft);stroke-width:1.1}
.narrow .dots.chosen{stroke-width:3.2}.narrow .dots.passed{stroke-width:2}
.narrow .dots.dropped,.narrow .dots.heldout{stroke-width:.8}
.hole{fill:none;stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}
svg .holename{font-weight:600;paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
svg .cell{font-size:12px;fill:var(--cellink)}svg .cell.strong{fill:var(--cellstrong);font-weight:600}
.key{display:inline-flex;align-items:center;gap:.35em;white-space:nowrap}
.key.student{color:var(--student);font-weight:600}.key.teacher{color:var(--teacher);font-weight:600}
.scroll{overflow-x:auto;margin:.6rem 0 1rem}
table{border-collapse:collapse;width:100%;font-size:.9rem}
caption{text-align:left;padding-bottom:.3rem}
th,td{text-align:left;padding:.36rem .9rem .36rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:500;color:var(--soft);font-size:.82rem}
tbody th{color:var(--ink);font-size:.9rem;min-width:6.2em}
.n{text-align:right;white-space:nowrap}
.n+:not(.n){padding-left:.7rem}
th:last-child,td:last-child{padding-right:0}
td.code,dd.code,code{font-family:ui-monospace,"Liberation Mono",Menlo,Consolas,monospace;font-size:.82em;
overflow-wrap:anywhere}
@media screen and (max-width:639px){
th,td{padding-right:.6rem}table{font-size:.86rem}
.stack thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
.stack,.stack tbody,.stack tr,.stack th,.stack td{display:block}
.stack tr{border-bottom:1px solid var(--rule);padding:.5rem 0}
.stack tbody th,.stack tbody td{border:0;padding:.1rem 0;text-align:left;white-space:normal}
.stack tbody .n+td{padding-left:0}
.stack td{display:grid;grid-template-columns:7.5rem 1fr;gap:.6rem}
.stack td::before{content:attr(data-name);color:var(--soft)}
.stack td:has(span:empty){display:none}
}
details{margin:.2rem 0 .8rem}
summary{cursor:pointer;width:max-content;max-width:100%}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;margin:.6rem 0 1.2rem;font-size:.92rem}
.facts dt{font-size:.875rem}.facts dd{margin:0;overflow-wrap:anywhere}
@media (max-width:479px){.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:.6rem}}
.sample{margin:1rem 0;padding:.1rem 0 .1rem 1rem;border-left:2px solid var(--rule)}
.said{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;margin:.1rem 0 .3rem}
.asked{color:var(--soft);font-size:.875rem;max-height:7.5em;overflow:auto}
ul{padding-left:1.2rem;max-width:66ch}li{margin:.25rem 0}
footer{padding-top:2.4rem;padding-bottom:3rem}
@media print{
body{font-size:10.5pt;background:#fff}main,header,footer{max-width:none;padding:0}header{padding-top:0}
nav,summary{display:none}
svg,tr,.scroll,figcaption,.sample,.verdict{break-inside:avoid}h2,h3,figcaption{break-after:avoid}
.scroll{overflow:visible}th,td{padding:.2rem .5rem .2rem 0}tbody th{min-width:0}
.pair th,.pair td{font-size:inherit;padding-right:.3rem}
.pair table{font-size:7.5pt}.three table{font-size:6.5pt}
section{margin-top:1.6rem;padding-top:.8rem}
details::details-content{content-visibility:visible;display:block;height:auto}
.asked{max-height:none;overflow:visible}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
)
