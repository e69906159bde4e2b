//! How a report looks, and the little that it does: its style sheet and its script. Without the script everything is there to read.

/// Light and dark as the reader has it, one column on a phone, black on white in print.
pub const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c1c22;--faint:#5c5c68;--line:#dcdce3;--back:#fff;--soft:#f5f5f8;--mark:#0072b2;--good:#00795a;--bad:#b14400}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8ee;--faint:#a2a2b0;--line:#3a3a46;--back:#16161b;--soft:#202028;--mark:#5cb8ee;--good:#3cc79c;--bad:#ef9154}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:78rem;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line);padding-bottom:.2rem}h3{font-size:1rem;margin:1.2rem 0 .4rem;overflow-wrap:anywhere}
p{margin:.4rem 0}.faint{color:var(--faint)}.ok{color:var(--good)}.failed,.stopped,.unfinished{color:var(--bad)}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.5rem 0}a{color:var(--mark)}
.wide{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.92rem}
th,td{padding:.3rem .7rem;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:0;cursor:pointer}
th[aria-sort=ascending] button::after{content:' ▲'}th[aria-sort=descending] button::after{content:' ▼'}
tbody tr:hover{background:var(--soft)}td.long{white-space:normal;overflow-wrap:anywhere;min-width:12rem}
input[type=search]{font:inherit;color:inherit;background:var(--soft);border:1px solid var(--line);border-radius:.3rem;padding:.3rem .6rem;width:100%;max-width:22rem;margin:.3rem 0}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));gap:1rem}
figure{margin:0}figure img,figure svg{max-width:100%;height:auto;border:1px solid var(--line);border-radius:.3rem;background:#fff}
figcaption{font-size:.85rem;color:var(--faint);overflow-wrap:anywhere}
pre{background:var(--soft);border:1px solid var(--line);border-radius:.3rem;padding:.7rem;overflow-x:auto;font:.85rem/1.45 ui-monospace,monospace;tab-size:4}
details{margin:.4rem 0}summary{cursor:pointer;padding:.2rem 0}
.k{color:#9b3fa0}.s{color:#2f7d2f}.d{color:#00728a}.c{color:var(--faint)}.f{color:#2a5bbf}
@media(prefers-color-scheme:dark){.k{color:#d99ade}.s{color:#8fd08f}.d{color:#6bcbe0}.f{color:#8fb3ff}}
@media print{:root{--ink:#000;--faint:#444;--line:#bbb;--back:#fff;--soft:#fff}body{max-width:none;font-size:11px}input[type=search],nav{display:none}figure,tr{break-inside:avoid}.wide{overflow:visible}pre{white-space:pre-wrap}}
";

/// Sorting by a click on a column's head, and a field above each table that keeps the rows with its words.
pub const SCRIPT: &str = "
for(const table of document.querySelectorAll('table.sorts')){
const body=table.tBodies[0],rows=[...body.rows];
const value=(row,i)=>{const t=row.cells[i]?row.cells[i].dataset.v??row.cells[i].textContent.trim():'';const n=Number(t);return t!==''&&!Number.isNaN(n)?n:t};
[...table.tHead.rows[0].cells].forEach((th,i)=>{
const b=document.createElement('button');b.type='button';b.textContent=th.textContent;th.textContent='';th.append(b);
b.onclick=()=>{const up=th.getAttribute('aria-sort')!=='ascending';
for(const o of table.tHead.rows[0].cells)o.removeAttribute('aria-sort');
th.setAttribute('aria-sort',up?'ascending':'descending');
rows.sort((p,q)=>{const a=value(p,i),b=value(q,i);
const c=a===''?(b===''?0:1):b===''?-1:typeof a==='number'&&typeof b==='number'?a-b:String(a).localeCompare(String(b));
return a===''||b===''?c:up?c:-c});
body.append(...rows)}});
if(rows.length>5){const f=document.createElement('input');f.type='search';f.placeholder='filter rows';f.setAttribute('aria-label','filter rows');
f.oninput=()=>{const words=f.value.toLowerCase().split(' ').filter(w=>w);
for(const r of rows){const t=r.textContent.toLowerCase();r.hidden=!words.every(w=>t.includes(w))}};
table.parentElement.before(f)}}
";
